"""What the backends of a host share, lest each of them find it out anew: small files that only their owner can reach.

A cache is never in the way and never trusted further than the file system vouches for it: where the folder or a file
is not exactly as it is made here, it counts as empty, and nothing is written to it. The folder is in memory, so what is
in it neither outlives a reboot nor gets into a backup.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from awslambda.waits import Wait, in_openssl

VARIABLE = "AWSLAMBDA_CACHE"  # of the process's environment: the path of another folder, or nothing for no cache
MEMORY = "/dev/shm"  # noqa: S108 - the folder in it is checked each time
LARGEST = 64 * 1024  # bytes of a file; tokens of AWS have a few thousand at most
KEPT = 86400.0  # seconds, after which what was not written again is removed
PATIENCE = 5.0  # seconds that others wait for what one is finding out, before another one tries too
ASK_LOCK = 0.02  # seconds between two tries

_FOLDER = re.compile(r"files-[0-9a-f]{32}")
_FILE = re.compile(r"[0-9a-f]{64}(\.\d+\.lock)?|[0-9a-f]{32}\.part")
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO in a file's place is not waited for


def place() -> str:
    """The folder that this process's environment asks for; empty for none."""
    asked = os.environ.get(VARIABLE, f"{MEMORY}/awslambda-{os.geteuid()}")
    return asked if asked.startswith("/") else ""  # of a backend the working directory is the data directory


class Cache:
    """Values of JSON, by name, for those whose `key` is the same; the key itself is not written."""

    def __init__(self, folder: str, key: tuple[object, ...]) -> None:
        self._folder = folder
        self._key = key

    def get(self, name: str, fields: tuple[str, ...]) -> dict[str, Any] | None:
        """What was put there, if it has exactly these fields."""
        with contextlib.suppress(OSError, ValueError, RecursionError), self._opened() as folder:
            file = os.open(self._file(name), os.O_RDONLY | _OPEN, dir_fd=folder)
            with open(file, "rb") as stream:  # noqa: PTH123 - a descriptor
                _check(file, stat.S_IFREG)
                if len(content := stream.read(LARGEST + 1)) <= LARGEST:
                    value = json.loads(content)
                    return value if isinstance(value, dict) and value.keys() == set(fields) else None
        return None

    def put(self, name: str, value: Mapping[str, Any]) -> None:
        """Written beside its place and moved there, so that nobody ever reads a part of it."""
        content = json.dumps(value).encode()
        with contextlib.suppress(OSError), self._opened() as folder:
            _remove_old(folder)
            part = f"{os.urandom(16).hex()}.part"
            file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=folder)
            try:
                with open(file, "wb") as stream:  # noqa: PTH123 - a descriptor
                    stream.write(content)
                os.rename(part, self._file(name), src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(part, dir_fd=folder)
                raise

    def drop(self, name: str) -> None:
        """Makes it as if nothing had been put there."""
        with contextlib.suppress(OSError), self._opened() as folder:
            os.unlink(self._file(name), dir_fd=folder)

    @contextlib.contextmanager
    def lock(self, name: str, wait: Wait | None) -> Iterator[bool]:
        """Whether the block runs while nobody else runs one of this name. Without `wait` that is known at once; else
        it is waited for. Who has it may be stuck: so each `PATIENCE` one more of those that wait is let in. A process
        that ends lets go of it."""
        file, alone = -1, False
        try:
            with contextlib.suppress(OSError):  # no folder; a file system without locks
                for number in itertools.count():
                    with self._opened() as folder:
                        path = f"{self._file(name)}.{number}.lock"
                        file = os.open(path, os.O_RDWR | os.O_CREAT | _OPEN, 0o600, dir_fd=folder)
                    _check(file, stat.S_IFREG)
                    alone = _locked(file, wait and wait.within(PATIENCE))
                    if alone or wait is None or time.monotonic() >= wait.deadline:
                        break
                    os.close(file)
                    file = -1
            yield alone
        finally:
            if file >= 0:
                os.close(file)

    def problem(self) -> str:
        """Why nothing is kept here; empty if that is not so."""
        try:
            with self._opened():
                return ""
        except OSError as error:
            return error.strerror or str(error)

    def _file(self, name: str) -> str:
        with in_openssl():
            return sha256(repr((name, self._key)).encode()).hexdigest()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """The folder of the files, made if it is not there. What is done in it is done in this very one, wherever its
        name points a moment later. It is below the folder that is known, by a name drawn at random: who can make
        Postgres read a file, but not list a folder (COPY, by a member of pg_read_server_files), does not find any."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)  # noqa: PTH102 - pathlib is not imported for a call
        with _private(self._folder) as known:
            if not (names := _listed(_FOLDER, known)):
                names = [f"files-{os.urandom(16).hex()}"]
                os.mkdir(names[0], 0o700, dir_fd=known)
            with _private(min(names), known) as folder:
                yield folder


@contextlib.contextmanager
def _private(path: str, within: int | None = None) -> Iterator[int]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _OPEN, dir_fd=within)
    try:
        _check(folder, stat.S_IFDIR)
        yield folder
    finally:
        os.close(folder)


def _check(descriptor: int, kind: int) -> None:
    """PermissionError unless it is of that kind, belongs to us, and nobody else may do anything with it."""
    found = os.fstat(descriptor)
    if stat.S_IFMT(found.st_mode) != kind or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "others can reach it")


def _locked(file: int, wait: Wait | None) -> bool:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if wait is None:
                return False
        try:
            wait.sleep(ASK_LOCK)
        except TimeoutError:
            return False


def _listed(pattern: re.Pattern[str], folder: int) -> list[str]:
    return [name for name in os.listdir(folder) if pattern.fullmatch(name)]


def _remove_old(folder: int) -> None:
    """Of keys that nobody has any more, and of processes that were killed."""
    for name in _listed(_FILE, folder):
        with contextlib.suppress(OSError):
            if os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime < time.time() - KEPT:
                os.unlink(name, dir_fd=folder)
