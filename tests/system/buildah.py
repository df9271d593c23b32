"""Container images without Docker: Debian's buildah, and a Debian that stands in for the official PostgreSQL image.

Everything happens in a mount namespace and a folder of its own, which are gone when `Buildah` is closed or this
process ends. The namespace's root is a bind mount of `/`: buildah wants its root to be a mount point, which in a plain
chroot it is not.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import tempfile
from pathlib import Path

PACKAGES = ("buildah", "mmdebstrap", "arch-test")  # Debian's names, and the programs'
STAND_IN = "localhost/stand-in"

# The tmpfs is there to be private even where / is shared: what is mounted below it is seen by nobody else.
_NAMESPACE = """
mount -t tmpfs -o mode=700 none "$1" && mount --make-private "$1" && mkdir "$1/root" &&
mount --rbind / "$1/root" && mount --make-rprivate "$1/root" && echo ready && exec chroot "$1/root" cat
"""


class CommandError(Exception):
    """A command failed; the message has the end of what it said."""


def run(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    """What a command prints on standard output."""
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-60:])
        raise CommandError(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{said}")
    return done.stdout


class Buildah:
    """buildah with a store of its own. Raises CommandError if root may not mount here, as in a container."""

    def __init__(self) -> None:
        self._made = contextlib.ExitStack()
        with contextlib.ExitStack() as made:
            self.folder = Path(made.enter_context(tempfile.TemporaryDirectory(prefix="awslambda-image-", dir="/tmp")))
            self._enter = self._namespace(made)
            self._environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf")}
            self._use("overlay")
            try:
                self("rm", self.mounted_container()[0])
            except CommandError:  # no overlay on this file system: vfs works on all, but copies everything for a layer
                self._use("vfs")
            self._made = made.pop_all()

    def close(self) -> None:
        self._made.close()

    def __call__(self, *arguments: str | Path) -> str:
        return run(*self._enter, "buildah", *arguments, environment=self._environment)

    def mounted_container(self, image: str = "scratch") -> tuple[str, Path]:
        """A new container, and where its files are."""
        container = self("from", image).strip()
        return container, Path(self("mount", container).strip())

    def run(self, container: str, *command: str, user: str = "root", **environment: str) -> str:
        """What a command prints that runs in a container with this machine's network."""
        how = ["--isolation=chroot", "--network=host", f"--user={user}"]
        how += [f"--env={name}={value}" for name, value in environment.items()]
        return self("run", *how, container, "--", *command)

    def build(self, context: Path, *options: str) -> None:
        """Builds a Dockerfile on the stand-in. Its pip trusts whom pip trusts on this machine."""
        # Docker's format, because OCI's knows no healthcheck.
        how = ["--isolation=chroot", "--network=host", "--format=docker", f"--layers={self._layers}", *options]
        if trusted := os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE"):
            (self.folder / "pip.conf").write_text("[global]\ncert = /run/trusted.crt\n")
            how += [f"--volume={trusted}:/run/trusted.crt:ro", f"--volume={self.folder}/pip.conf:/etc/pip.conf:ro"]
        self("bud", *how, f"--build-arg=BASE={STAND_IN}", f"--build-arg=PG_MAJOR={postgres_major()}", context)

    def make_stand_in(self) -> None:
        """A Debian with PostgreSQL and the official image's variables; like it, without ca-certificates and Python."""
        container, folder = self.mounted_container()
        major = postgres_major()
        how = ["--variant=minbase", "--mode=root", f"--include=postgresql-{major}", "--dpkgopt=force-unsafe-io"]
        how += [f"--dpkgopt=path-exclude=/usr/share/{unread}/*" for unread in ("doc", "locale", "man")]
        options = re.findall(r"^Acquire::(?:Check-|https?::).*", run("apt-config", "dump"), re.MULTILINE)
        how += [f"--aptopt={option}" for option in options]
        how += ['--customize-hook=rm -r "$1"/var/lib/postgresql/*/main']
        run(*self._enter, "mmdebstrap", *how, suite(), folder, *sources())
        path = f"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/{major}/bin"
        self("config", f"--env=PG_MAJOR={major}", f"--env=PATH={path}", container)
        self("commit", "--quiet", "--rm", container, STAND_IN)

    def _namespace(self, made: contextlib.ExitStack) -> list[str]:
        """How to run a command in the new namespace, which lives as long as a process that waits for our end."""
        folder = made.enter_context(tempfile.TemporaryDirectory(prefix="awslambda-root-", dir="/tmp"))
        made.callback(subprocess.run, ["umount", folder], capture_output=True, check=False)  # seen here if / is shared
        command = ["unshare", "--mount", "--propagation=unchanged", "sh", "-c", _NAMESPACE, "sh", folder]
        keeper = made.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
        assert keeper.stdin and keeper.stdout and keeper.stderr
        if keeper.stdout.readline() != b"ready\n":
            raise CommandError(f"cannot mount: {keeper.stderr.read().decode(errors='replace').strip()}")
        return ["nsenter", f"--target={keeper.pid}", "--mount", "--root", "--wd"]

    def _use(self, driver: str) -> None:
        self._layers = str(driver == "overlay").lower()
        store = {"driver": driver, "graphroot": f"{self.folder}/{driver}", "runroot": f"{self.folder}/{driver}.run"}
        lines = ["[storage]", *(f'{key} = "{value}"' for key, value in store.items())]
        (self.folder / "storage.conf").write_text("\n".join(lines) + "\n")


def suite() -> str:
    """This distribution's name: bookworm …"""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def sources() -> list[str]:
    """This distribution's archives, from the mirrors that this machine's apt uses."""
    suites = {suite(), f"{suite()}-updates", f"{suite()}-security"}
    indexes = run("apt-get", "indextargets", "--format=$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    lines = [index.split() for index in dict.fromkeys(indexes.splitlines())]
    return [f"deb {uri} {release} {component}" for uri, release, component in lines if release in suites]


def postgres_major() -> str:
    """The distribution's own."""
    depends = re.search(r"Depends: postgresql-(\d+)", run("apt-cache", "depends", "postgresql"))
    assert depends, "apt knows no package postgresql"
    return depends[1]
