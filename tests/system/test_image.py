"""The Dockerfile, proven without Docker too: buildah builds it on a Debian that stands in for the official image, and
the PostgreSQL in that image calls a function. Where a Docker daemon answers, Docker does all of it as well."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from awslambda_local import LocalAWS

from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent.parent
TOOLS = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "arch-test": "arch-test"}  # program: Debian's package
STAND_IN = "localhost/stand-in"
IMAGE = "localhost/awslambda"
CALL = """SELECT awslambda_fn('lambdaTest', '{"name":"bob"}')"""
ANSWER = {"name": "bob", "Status": "OK"}

# Run in the image by the user postgres, with the healthcheck's command as arguments.
SESSION = r"""
folder=$(mktemp -d)
trap 'pg_ctl stop -s -m immediate -D "$folder/data"; rm -rf "$folder"' EXIT
set -e
initdb --no-sync -A trust -D "$folder/data" >/dev/null
if "$@"; then echo healthy; else echo unhealthy; fi
pg_ctl start -s -w -D "$folder/data" -l "$folder/log" \
  -o "-k $folder -c listen_addresses=127.0.0.1 -c fsync=off" || { cat "$folder/log" >&2; exit 1; }
if "$@"; then echo healthy; else echo unhealthy; fi
psql -X -q -A -t -v ON_ERROR_STOP=1 -c "CREATE EXTENSION awslambda CASCADE" -c "$CALL"
awslambda doctor >&2
"""


class CommandError(Exception):
    """A command failed; the message has the end of what it said."""


class Buildah:
    """buildah with a store of its own in a folder, from which `close` removes whatever it has made and mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf")}
        self._use("overlay")
        try:
            self("rm", self.mounted_container()[0])
        except CommandError:  # no overlay mounts here: vfs is slower, but works everywhere
            self._use("vfs")

    def __call__(self, *arguments: str | Path) -> str:
        return run("buildah", *arguments, environment=self._environment)

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
        volumes = []
        if trusted := os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE"):
            (self.folder / "pip.conf").write_text("[global]\ncert = /run/trusted.crt\n")
            volumes = [f"--volume={trusted}:/run/trusted.crt:ro", f"--volume={self.folder}/pip.conf:/etc/pip.conf:ro"]
        # Docker's format, because OCI's knows no healthcheck.
        how = ["--isolation=chroot", "--network=host", "--layers", "--format=docker", *volumes, *options]
        self("bud", *how, f"--build-arg=BASE={STAND_IN}", f"--build-arg=PG_MAJOR={postgres_major()}", context)

    def close(self) -> None:
        for what in (["umount", "--all"], ["rm", "--all"], ["rmi", "--all", "--force"]):
            subprocess.run(["buildah", *what], env=self._environment, capture_output=True, check=False)
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in reversed([mount for mount in mounts if Path(mount).is_relative_to(self.folder)]):
            run("umount", mount)

    def _use(self, driver: str) -> None:
        store = {"driver": driver, "graphroot": f"{self.folder}/{driver}", "runroot": f"{self.folder}/{driver}.run"}
        lines = ["[storage]", *(f'{key} = "{value}"' for key, value in store.items())]
        (self.folder / "storage.conf").write_text("\n".join(lines) + "\n")


def run(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    """What a command prints on standard output."""
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-60:])
        raise CommandError(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{said}")
    return done.stdout


def sources() -> list[str]:
    """This distribution's archives, from the mirrors that this machine's apt uses."""
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    suites = {suite, f"{suite}-updates", f"{suite}-security"}
    indexes = run("apt-get", "indextargets", "--format=$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    lines = [index.split() for index in dict.fromkeys(indexes.splitlines())]
    return [f"deb {uri} {release} {component}" for uri, release, component in lines if release in suites]


def postgres_major() -> str:
    """The distribution's own."""
    depends = re.search(r"Depends: postgresql-(\d+)", run("apt-cache", "depends", "postgresql"))
    assert depends, "apt knows no package postgresql"
    return depends[1]


def make_stand_in(buildah: Buildah) -> None:
    """A Debian with PostgreSQL and the official image's variables; like it, without ca-certificates and Python."""
    container, folder = buildah.mounted_container()
    major = postgres_major()
    options = re.findall(r"^Acquire::(?:Check-|https?::).*", run("apt-config", "dump"), re.MULTILINE)
    how = [f"--aptopt={option}" for option in options]
    how += [f"--dpkgopt=path-exclude=/usr/share/{unread}/*" for unread in ("doc", "locale", "man")]
    how += ["--dpkgopt=force-unsafe-io", '--customize-hook=rm -r "$1"/var/lib/postgresql/*/main']
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    run("mmdebstrap", "--variant=minbase", "--mode=root", f"--include=postgresql-{major}", *how, suite, folder, *sources())
    path = f"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/{major}/bin"
    buildah("config", f"--env=PG_MAJOR={major}", f"--env=PATH={path}", container)
    buildah("commit", "--quiet", "--rm", container, STAND_IN)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def buildah() -> Iterator[Buildah]:
    """With the stand-in in its store. Installs what is missing if it may, else skips and says what that is."""
    missing = [package for program, package in TOOLS.items() if not shutil.which(program)]
    if os.geteuid() != 0:
        pytest.skip(f"building an image without Docker needs root{' and ' + ' '.join(missing) if missing else ''}")
    if missing and not shutil.which("apt-get"):
        pytest.skip(f"building an image without Docker needs {' '.join(missing)} (Debian's names)")
    if missing or not sources():
        quietly = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-qq", "--no-install-recommends", *TOOLS.values(), environment=quietly)
    with tempfile.TemporaryDirectory(prefix="awslambda-image-") as folder:
        made = Buildah(Path(folder))
        try:
            make_stand_in(made)
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def container(buildah: Buildah) -> str:
    """A container of the image that the Dockerfile makes."""
    buildah.build(ROOT, f"--tag={IMAGE}")
    return buildah.mounted_container(IMAGE)[0]


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    run(Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile")


@pytest.mark.slow
def test_the_image_calls_a_function_and_knows_whether_it_is_healthy(
    buildah: Buildah, container: str, aws: LocalAWS
) -> None:
    config = json.loads(buildah("inspect", "--type=image", IMAGE))["Docker"]["config"]
    kind, *healthcheck = config["Healthcheck"]["Test"]
    assert kind == "CMD"
    where = {"PGHOST": "127.0.0.1", "PGPORT": str(free_port()), **aws.environment}
    said = buildah.run(container, "bash", "-c", SESSION, "bash", *healthcheck, user="postgres", CALL=CALL, **where)
    before, after, answer = said.splitlines()
    assert (before, after, json.loads(answer)) == ("unhealthy", "healthy", ANSWER)


@pytest.mark.slow
def test_nothing_that_only_the_build_needs_is_in_the_image(buildah: Buildah, container: str) -> None:
    assert buildah.run(container, "sh", "-c", "command -v pip pip3 make || true") == ""
    assert buildah.run(container, "find", "/", "-xdev", "-type", "d", "-name", "pip") == ""
    assert buildah.run(container, "find", "/var/lib/apt/lists", "/tmp", "-mindepth", "1") == ""


@pytest.mark.slow
def test_no_python_of_ours_is_compiled_anew_in_the_image(buildah: Buildah, container: str) -> None:
    command = "PYTHONPATH=$(echo /usr/local/lib/awslambda/*) python3 -v -c 'import awslambda.plpython, boto3' 2>&1"
    said = buildah.run(container, "sh", "-c", command, user="postgres")
    loaded = re.findall(r"^# code object from '(/usr/local/.*)'", said, re.MULTILINE)
    assert loaded
    assert [file for file in loaded if not file.endswith(".pyc")] == []


@pytest.mark.slow
def test_a_package_that_cannot_be_imported_fails_the_build(buildah: Buildah, container: str, tmp_path: Path) -> None:
    for file in ("Dockerfile", ".dockerignore", "Makefile"):
        shutil.copy2(ROOT / file, tmp_path)
    for folder in ("extension", "python", "sql"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    with (tmp_path / "python/src/awslambda/plpython.py").open("a") as module:
        module.write("import no_such_module\n")
    with pytest.raises(CommandError, match=r"the Python package awslambda is not in|no_such_module"):
        buildah.build(tmp_path)


@pytest.fixture
def docker_client() -> Iterator[Any]:
    docker = pytest.importorskip("docker")
    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker daemon answers: {error}")
    with contextlib.closing(client):
        if not client.api.base_url.startswith("http+docker:"):
            pytest.skip("the Docker daemon is on another machine, whose containers cannot reach the local AWS")
        yield client


@pytest.mark.slow
def test_docker_builds_and_runs_the_image(docker_client: Any, aws: LocalAWS) -> None:
    tag = f"awslambda-test:{uuid.uuid4()}"
    variables = {"POSTGRES_PASSWORD": "test", "PGPORT": str(free_port()), **aws.environment}
    docker_client.images.build(path=str(ROOT), tag=tag, rm=True, forcerm=True)
    with contextlib.ExitStack() as made:
        made.callback(docker_client.images.remove, tag)
        container = docker_client.containers.run(tag, detach=True, network_mode="host", environment=variables)
        made.callback(container.remove, v=True, force=True)

        def is_healthy() -> bool:
            container.reload()
            return bool(container.attrs["State"]["Health"]["Status"] == "healthy")

        wait_until(is_healthy, "the container's healthcheck to succeed", seconds=120)
        psql = ["psql", "-X", "-q", "-A", "-t", "-U", "postgres", "-v", "ON_ERROR_STOP=1"]
        code, said = container.exec_run([*psql, "-c", "CREATE EXTENSION awslambda CASCADE", "-c", CALL])
        assert code == 0, said
        assert ANSWER in [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]
