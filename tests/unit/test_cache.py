"""The cache that backends share: what is put there is there for others of the same user, and for nobody else."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from awslambda import cache as cache_
from awslambda.cache import Cache
from awslambda.waits import Wait

from tests.unit.cancelling import cancelled, nothing, takes

FIELDS = ("name", "source")
VALUE = {"name": "eu-west-1", "source": "instance metadata"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the cache is to be."""
    return tmp_path / "cache"


@pytest.fixture
def cache(folder: Path) -> Cache:
    """One that has VALUE."""
    made = Cache(str(folder), ("key",))
    made.put("region", VALUE)
    return made


def files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/*") if path.suffix == ""]


def got(cache: Cache) -> object:
    return cache.get("region", FIELDS)


def wait(seconds: float = 20) -> Wait:
    return Wait(nothing, seconds)


def test_what_one_has_put_another_gets(folder: Path, cache: Cache) -> None:
    assert got(cache) == got(Cache(str(folder), ("key",))) == VALUE


@pytest.mark.parametrize(
    ("key", "name", "fields"),
    [(("other",), "region", FIELDS), (("key",), "other", FIELDS), (("key",), "region", ("name",))],
    ids=["key", "name", "fields"],
)
def test_another_key_name_or_form_gets_nothing(
    folder: Path, cache: Cache, key: tuple[str], name: str, fields: tuple[str, ...]
) -> None:
    assert Cache(str(folder), key).get(name, fields) is None
    assert got(cache) == VALUE


def test_what_is_dropped_is_gone_for_all(folder: Path, cache: Cache) -> None:
    Cache(str(folder), ("key",)).drop("region")
    assert got(cache) is None
    cache.drop("region")  # nothing to drop


def test_folders_and_files_are_for_their_owner_alone_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        cache = Cache(str(folder), ())
        cache.put("region", VALUE)
        with cache.lock("region", None):
            pass
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
    assert len(modes) == 4
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items()), modes


def test_neither_key_nor_name_is_in_the_names_of_files(folder: Path) -> None:
    Cache(str(folder), ("AWS_SECRET_ACCESS_KEY=hunter2",)).put("credentials", VALUE)
    (path,) = files(folder)
    assert "hunter2" not in str(path) + path.read_text() and "credentials" not in str(path)


def test_the_path_of_a_file_cannot_be_foreseen(tmp_path: Path) -> None:
    paths = set()
    for name in "ab":
        Cache(str(tmp_path / name), ("key",)).put("region", VALUE)
        (path,) = files(tmp_path / name)
        paths.add(path.parent.name)
    assert len(paths) == 2


# What is not as it must be counts as nothing, and is left alone.

Spoil = Callable[[Path], object]


def linked(path: Path) -> None:
    """The same, but behind a symbolic link."""
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


@pytest.mark.parametrize("level", ["file", "inner", "outer"])
@pytest.mark.parametrize(
    "spoil",
    [linked, lambda path: path.chmod(0o740), lambda path: path.chmod(0o704), lambda path: path.chmod(0o711)],
    ids=["link", "read by group", "read by others", "entered by others"],
)
def test_what_others_could_reach_is_not_used(folder: Path, cache: Cache, level: str, spoil: Spoil) -> None:
    (file,) = files(folder)
    spoil({"file": file, "inner": file.parent, "outer": folder}[level])
    assert got(cache) is None


@pytest.mark.parametrize("level", ["inner", "outer"])
def test_nothing_is_written_where_others_could_reach_it(folder: Path, cache: Cache, level: str) -> None:
    (file,) = files(folder)
    (folder if level == "outer" else file.parent).chmod(0o750)
    before = sorted(folder.rglob("*"))
    cache.put("region", {"name": "eu-west-2", "source": ""})
    cache.drop("region")
    with cache.lock("region", wait()) as alone:
        assert not alone
    assert sorted(folder.rglob("*")) == before
    assert json.loads(file.read_text()) == VALUE


def test_a_folder_of_somebody_else_is_not_used(monkeypatch: pytest.MonkeyPatch, folder: Path, cache: Cache) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert got(cache) is None
    before = sorted(folder.rglob("*"))
    cache.put("other", VALUE)
    with cache.lock("region", wait()) as alone:
        assert not alone
    assert sorted(folder.rglob("*")) == before


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("level", ["file", "inner", "outer"])
def test_what_belongs_to_somebody_else_is_not_used(folder: Path, cache: Cache, level: str) -> None:
    (file,) = files(folder)
    os.chown({"file": file, "inner": file.parent, "outer": folder}[level], 65534, 65534)
    assert got(cache) is None


def test_a_link_to_a_private_folder_is_not_followed(tmp_path: Path, folder: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    folder.symlink_to(private)
    cache = Cache(str(folder), ())
    cache.put("region", VALUE)
    assert got(cache) is None
    assert list(private.iterdir()) == []


def test_a_link_in_a_files_place_is_replaced_not_written_through(tmp_path: Path, folder: Path, cache: Cache) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (file,) = files(folder)
    file.unlink()
    file.symlink_to(target)
    cache.put("region", VALUE)
    assert target.read_text() == "precious"
    assert got(cache) == VALUE
    assert not file.is_symlink()


def test_a_pipe_in_a_files_place_is_not_waited_for(folder: Path, cache: Cache) -> None:
    (file,) = files(folder)
    file.unlink()
    os.mkfifo(file, 0o600)
    with takes(0):
        assert got(cache) is None


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b'{"name": "eu-west-1", "sou', b"\xff\xfe", b"[]", b"null", b'"text"', b"{}", b'{"name": "x"}',
        b"[" * 60_000, json.dumps({**VALUE, "more": 1}).encode(), json.dumps(VALUE).encode() + b" " * cache_.LARGEST,
    ],
    ids=lambda content: repr(content[:20]),
)  # fmt: skip
def test_what_is_broken_counts_as_nothing_and_is_put_right(folder: Path, cache: Cache, content: bytes) -> None:
    (file,) = files(folder)
    file.write_bytes(content)
    assert got(cache) is None
    cache.put("region", VALUE)
    assert got(cache) == VALUE


@pytest.mark.parametrize("place", ["", "/no/such/folder/at/all", "/dev/null", "/proc"])
def test_without_a_folder_there_is_nothing_and_no_error(place: str) -> None:
    cache = Cache(place, ())
    cache.put("region", VALUE)
    cache.drop("region")
    assert got(cache) is None
    with takes(0), cache.lock("region", wait()) as alone:
        assert not alone


def test_a_full_file_system_leaves_what_was_there_and_no_part(
    monkeypatch: pytest.MonkeyPatch, folder: Path, cache: Cache
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    cache.put("region", {"name": "eu-west-2", "source": ""})
    assert got(cache) == VALUE
    assert list(folder.rglob("*.part")) == []


def test_who_reads_while_others_write_never_sees_a_part(folder: Path) -> None:
    program = (
        "import sys; from awslambda.cache import Cache\n"
        "for n in range(300): Cache(sys.argv[1], ()).put('n', {'a': sys.argv[2] * n, 'b': sys.argv[2] * n})"
    )
    cache = Cache(str(folder), ())
    cache.put("n", {"a": "", "b": ""})
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(folder), letter], env={"PYTHONPATH": ":".join(sys.path)})
        for letter in "xyz"
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        found = cache.get("n", ("a", "b"))
        assert found is not None and found["a"] == found["b"]
        seen.add(found["a"][:1])
    assert all(writer.returncode == 0 for writer in writers)
    assert len(seen) > 1
    assert len(list(folder.glob("*/*"))) == 1


def test_what_was_not_written_for_a_day_is_removed_and_nothing_of_others(folder: Path, cache: Cache) -> None:
    (old,) = files(folder)
    cache.put("new", VALUE)
    other = old.with_name("other")
    other.write_text("not ours")
    for path in (old, other):
        os.utime(path, (time.time() - cache_.KEPT - 1,) * 2)
    cache.put("newer", VALUE)
    assert not old.exists() and other.exists()
    assert cache.get("new", FIELDS) == VALUE


# One at a time.


@contextlib.contextmanager
def held(cache: Cache, name: str = "region") -> Iterator[threading.Event]:
    """Another thread has the lock until the event is set, or the block ends."""
    has, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with cache.lock(name, None) as alone:
            assert alone
            has.set()
            let_go.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert has.wait(20)
    try:
        yield let_go
    finally:
        let_go.set()
        thread.join()


def test_only_one_has_the_lock_and_the_next_one_after_it(cache: Cache) -> None:
    with held(cache) as let_go:
        with cache.lock("region", None) as alone:
            assert not alone
        threading.Timer(0.2, let_go.set).start()
        with takes(0.2), cache.lock("region", wait()) as alone:
            assert alone


def test_the_lock_of_another_name_or_key_is_another(folder: Path, cache: Cache) -> None:
    with held(cache), cache.lock("credentials", None) as alone, Cache(str(folder), ()).lock("region", None) as too:
        assert alone and too


def test_while_one_is_stuck_one_more_at_a_time_is_let_in(monkeypatch: pytest.MonkeyPatch, cache: Cache) -> None:
    monkeypatch.setattr(cache_, "PATIENCE", 0.2)
    with held(cache):
        with takes(0.2), cache.lock("region", wait()) as second:
            assert second
            with takes(0.4), cache.lock("region", wait()) as third:
                assert third
        with takes(0.2), cache.lock("region", wait()) as second:
            assert second, "not the third while there is no second"


def test_of_many_that_wait_one_goes_on_each_time_patience_ends(monkeypatch: pytest.MonkeyPatch, cache: Cache) -> None:
    monkeypatch.setattr(cache_, "PATIENCE", 0.5)
    entered: list[float] = []
    started = time.monotonic()

    def enter() -> None:
        with cache.lock("region", wait(1.2)) as alone:
            if alone:
                entered.append(time.monotonic() - started)
                time.sleep(2)

    threads = [threading.Thread(target=enter) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entered) == 3 and entered[0] < 0.4 < entered[1] < 0.9 < entered[2] < 1.4


@pytest.mark.parametrize("spoil", [lambda path: path.chmod(0o644), linked], ids=["mode", "link"])
def test_a_lock_that_others_can_reach_is_none(folder: Path, cache: Cache, spoil: Spoil) -> None:
    with cache.lock("region", None):
        pass
    (path,) = folder.glob("*/*.lock")
    spoil(path)
    with takes(0), cache.lock("region", wait()) as alone:
        assert not alone
    assert len(list(folder.glob("*/*.lock"))) == 1


def test_the_lock_is_not_waited_for_past_the_deadline(cache: Cache) -> None:
    with held(cache), takes(0.2), cache.lock("region", wait(0.2)) as alone:
        assert not alone


def test_an_interrupt_ends_waiting_for_the_lock(cache: Cache) -> None:
    with held(cache), cancelled() as check, cache.lock("region", Wait(check, 20)):
        pass


def test_a_process_that_is_killed_lets_go_of_the_lock(folder: Path, cache: Cache) -> None:
    program = (
        "import sys, time; from awslambda.cache import Cache\n"
        "with Cache(sys.argv[1], ('key',)).lock('region', None) as alone: print(alone, flush=True); time.sleep(60)"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        with cache.lock("region", None) as alone:
            assert not alone
        process.kill()
        process.wait()
        with cache.lock("region", None) as alone:
            assert alone


# Where it is.


def test_it_is_in_memory_and_each_user_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cache_.VARIABLE)
    assert cache_.place() == f"/dev/shm/awslambda-{os.geteuid()}"


@pytest.mark.parametrize(
    ("asked", "place"),
    [("/run/postgresql/awslambda", "/run/postgresql/awslambda"), ("", ""), ("base", ""), ("off", "")],
)
def test_the_environment_says_where_else_by_an_absolute_path(
    monkeypatch: pytest.MonkeyPatch, asked: str, place: str
) -> None:
    monkeypatch.setenv(cache_.VARIABLE, asked)
    assert cache_.place() == place
