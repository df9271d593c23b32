"""What one backend has found out about an identity, and what the next one makes of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from awslambda import aws, cache, errors
from awslambda.connection import Proxy
from awslambda.settings import Settings
from awslambda.waits import Wait

from tests.endpoints import Behaviour, Endpoint, in_turn, silence
from tests.unit.cancelling import cancelled, nothing, takes
from tests.unit.conftest import SECRET_KEY, TOKEN
from tests.unit.services import ROLES, Process, in_minutes, instance, metadata, sts

Start = Callable[..., Endpoint]

ROLE = "arn:aws:iam::123456789012:role/reports"


def wait(seconds: float = 20) -> Wait:
    return Wait(nothing, seconds)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., aws.Identity]:
    """The identity of a new backend with these options of its server."""

    def new(**options: Any) -> aws.Identity:
        monkeypatch.setattr(aws, "_identities", {})
        return aws.identity(Settings(**options))

    return new


Backend = Callable[..., aws.Identity]


@pytest.fixture
def without_botocore(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From this call on nothing may be asked of botocore."""

    def used(*_: object, **__: object) -> None:
        raise AssertionError("botocore was used")

    return lambda: monkeypatch.setattr(botocore.session, "Session", used)


@pytest.fixture
def on_instance(monkeypatch: pytest.MonkeyPatch, endpoint: Start) -> Callable[[Behaviour], Endpoint]:
    def start(behaviour: Behaviour) -> Endpoint:
        started = endpoint(behaviour)
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", started.url)
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        return started

    return start


@pytest.fixture
def process(tmp_path: Path) -> Process:
    return Process(tmp_path, tmp_path / "config")


@pytest.fixture
def in_a_minute(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From this call on it is a minute later, and a second."""
    real = time.time
    return lambda: monkeypatch.setattr(time, "time", lambda: real() + 61)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[], str]:
    """All that is in the cache, names included."""

    def read() -> str:
        files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
        assert files
        return "\n".join(f"{path}: {path.read_text()}" for path in files)

    return read


def key(who: aws.Identity, seconds: float = 20) -> str:
    return str(who.frozen_credentials(wait(seconds)).access_key)


def test_the_next_backend_asks_nobody_and_needs_no_botocore(
    on_instance: Callable[[Behaviour], Endpoint], backend: Backend, without_botocore: Callable[[], None]
) -> None:
    started = on_instance(metadata(instance("eu-north-1", "AKIDROLE")))

    def all_of(who: aws.Identity) -> object:
        region, source = who.region(wait())
        url = who.url("lambda", region, wait())
        return region, source, url, who.partition(region), tuple(who.frozen_credentials(wait()))

    first = all_of(backend())
    asked = len(started.requests)
    without_botocore()
    assert all_of(backend()) == first
    assert len(started.requests) == asked


def test_many_new_backends_at_once_ask_once(
    on_instance: Callable[[Behaviour], Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = on_instance(metadata(instance()))
    many = [aws.Identity(Settings(), cache.Cache(cache.place(), ("key",))) for _ in range(12)]
    found: list[object] = []
    threads = [threading.Thread(target=lambda who=who: found.append((who.region(wait()), key(who)))) for who in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12 and len(set(found)) == 1
    asked = [received.path for received in started.requests]
    assert asked.count(ROLES + "reports") == 1
    assert asked.count("/latest/meta-data/placement/region") == 1


def test_a_role_is_assumed_once_for_all(endpoint: Start, backend: Backend, keys: None) -> None:
    started = endpoint(sts("AKIDASSUMED"))
    given = {"region": "eu-west-1", "role_arn": ROLE, "endpoint_urls": {"sts": started.url}}
    assert [key(backend(**given)) for _ in range(3)] == ["AKIDASSUMED"] * 3
    assert len(started.requests) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"region": "eu-west-2"}, {"role_arn": f"{ROLE}-2"}, {"external_id": "other"}, {"ca_bundle": "/x"},
        {"profile": "other"}, {"endpoint_urls": {"": "https://127.0.0.1:1"}},
    ],
    ids=str,
)  # fmt: skip
def test_a_server_with_other_options_does_not_get_what_is_not_its_own(
    endpoint: Start, backend: Backend, keys: None, tmp_path: Path, change: dict[str, Any]
) -> None:
    (tmp_path / "config").write_text("[profile other]\nregion = eu-west-1\n")
    (tmp_path / "credentials").write_text("[other]\naws_access_key_id = a\naws_secret_access_key = b\n")
    started = endpoint(in_turn(sts("AKIDFIRST"), sts("AKIDSECOND")))
    urls = {"sts": started.url}
    given = {"region": "eu-west-1", "role_arn": ROLE, "external_id": "ext", "endpoint_urls": urls}
    assert key(backend(**given)) == "AKIDFIRST"
    changed = {**given, **change, "endpoint_urls": {**urls, **change.get("endpoint_urls", {})}}
    assert key(backend(**changed)) == "AKIDSECOND"
    assert key(backend(**given)) == "AKIDFIRST"


@pytest.mark.parametrize(
    "change",
    [
        lambda patch, _: patch.setenv("AWS_PROFILE", "default"),
        lambda patch, _: patch.setenv("AWS_ANYTHING", "x"),
        lambda patch, _: patch.setenv("https_proxy", "http://127.0.0.1:1"),
        lambda patch, folder: patch.setenv("HOME", str(folder / "home")),
        lambda _, folder: (folder / "config").write_text("[default]\n\ncredential_process = /bin/false\n"),
        lambda _, folder: (folder / "credentials").write_text("[other]\n"),
        lambda _, folder: (folder / "boto").write_text("\n"),
    ],
    ids=["profile", "any AWS_", "proxy", "HOME", "config", "credentials", "boto"],
)
def test_another_environment_or_another_file_is_looked_at_anew(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: Callable[[Any, Path], object]
) -> None:
    (tmp_path / "config").write_text("[default]\nregion = eu-west-1\n")
    seen = []
    monkeypatch.setattr(aws.Identity, "_find_region", lambda *_: seen.append(1) or {"name": "eu-west-1", "source": ""})
    backend().region(wait())
    backend().region(wait())
    assert len(seen) == 1
    change(monkeypatch, tmp_path)
    backend().region(wait())
    assert len(seen) == 2


def test_what_could_not_be_found_is_looked_for_again(
    backend: Backend, on_instance: Callable[[Behaviour], Endpoint]
) -> None:
    started = on_instance(metadata({}))
    with pytest.raises(errors.RegionUnknown):
        backend().region(wait())
    with pytest.raises(errors.NoCredentials):
        key(backend())
    started.behaviour = metadata(instance("eu-north-1", "AKIDROLE"))
    assert backend().region(wait())[0] == "eu-north-1"
    assert key(backend()) == "AKIDROLE"


# What may be written.


def test_temporary_credentials_are_written(
    backend: Backend, on_instance: Callable[[Behaviour], Endpoint], written: Callable[[], str]
) -> None:
    on_instance(metadata(instance()))
    key(backend())
    assert "token-of-the-role" in written()


def test_keys_of_a_profile_are_not_written(backend: Backend, tmp_path: Path, written: Callable[[], str]) -> None:
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = hunter2\n")
    assert [key(backend()) for _ in range(2)] == ["AKIDFILE"] * 2
    assert "hunter2" not in written() and "AKIDFILE" not in written()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"AWS_SESSION_TOKEN": "a"},
        {"AWS_SECURITY_TOKEN": "b"},
        {"AWS_SESSION_TOKEN": "a", "AWS_SECURITY_TOKEN": "b"},
        {"AWS_SESSION_TOKEN": "a", "AWS_SECURITY_TOKEN": ""},
        {"AWS_SESSION_TOKEN": ""},
        {"AWS_SESSION_TOKEN": "", "AWS_ACCOUNT_ID": "123456789012"},
        {"AWS_SESSION_TOKEN": "", "AWS_ACCOUNT_ID": ""},
    ],
    ids=str,
)
def test_keys_of_the_environment_are_read_there_as_botocore_reads_them_and_not_written(
    monkeypatch: pytest.MonkeyPatch,
    backend: Backend,
    written: Callable[[], str],
    without_botocore: Callable[[], None],
    more: dict[str, str],
) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": SECRET_KEY, **more}.items():
        monkeypatch.setenv(name, value)
    botocores = tuple(backend().frozen_credentials(wait()))
    without_botocore()
    assert tuple(backend().frozen_credentials(wait())) == botocores
    assert "AKIDENV" not in written() and SECRET_KEY not in written()


@pytest.mark.usefixtures("keys")
def test_credentials_of_the_environment_that_expire_are_as_temporary_as_others(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, written: Callable[[], str]
) -> None:
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", in_minutes(60))
    first = tuple(backend().frozen_credentials(wait()))
    assert tuple(backend().frozen_credentials(wait())) == first
    assert TOKEN in written()


def test_the_password_of_a_proxy_is_not_written(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, written: Callable[[], str]
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:hunter2@proxy.example:3128")
    wanted = Proxy("proxy.example", 3128, "Basic dXNlcjpodW50ZXIy")
    for _ in range(2):
        assert backend().url("lambda", "eu-west-1", wait()).endpoint.proxy == wanted
    assert "hunter2" not in written() and "dXNlcjpodW50ZXIy" not in written()
    assert "dXNlcjpodW50ZXIy" not in repr(wanted)


def test_a_proxy_without_a_password_is_known_to_the_next_one(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, without_botocore: Callable[[], None]
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    first = backend().url("lambda", "eu-west-1", wait())
    assert first.endpoint.proxy == Proxy("proxy.example", 3128)
    without_botocore()
    monkeypatch.setattr(aws, "_proxy", lambda _: pytest.fail("asked again"))
    assert backend().url("lambda", "eu-west-1", wait()) == first


def test_the_password_in_an_endpoint_is_not_written(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, written: Callable[[], str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://user:hunter2@lambda.example/path")
    for _ in range(2):
        assert backend().url("lambda", "eu-west-1", wait()).text == "https://lambda.example/path"
    assert "hunter2" not in written()


# Before they expire.


def test_credentials_are_asked_for_again_fifteen_minutes_before_they_expire(
    backend: Backend, process: Process, in_a_minute: Callable[[], None]
) -> None:
    process.gives("AKIDFIRST", in_minutes(16))
    assert [key(backend()) for _ in range(2)] == ["AKIDFIRST"] * 2
    assert process.runs == 1
    process.gives("AKIDSECOND", in_minutes(60))
    old = backend()
    assert key(old) == "AKIDFIRST"
    in_a_minute()
    assert key(backend()) == "AKIDSECOND"
    assert key(old) == "AKIDSECOND", "the file has them now"
    assert process.runs == 2


@pytest.mark.parametrize("another", ["is about it", "failed a moment ago"])
def test_credentials_that_are_good_for_minutes_yet_are_used_meanwhile(
    backend: Backend, process: Process, tmp_path: Path, in_a_minute: Callable[[], None], another: str
) -> None:
    process.gives("AKIDFIRST", in_minutes(12))
    first = backend()
    assert key(first) == "AKIDFIRST"
    runs = process.runs
    (tmp_path / "output.json").write_text("")
    in_a_minute()
    if another == "is about it":
        with first._cache.lock(aws.CREDENTIALS, None) as alone, takes(0):
            assert alone
            assert key(backend()) == "AKIDFIRST"
        assert process.runs == runs
    else:
        assert [key(backend()) for _ in range(3)] == ["AKIDFIRST"] * 3
        assert process.runs == runs + 1, "one of the three asked"


def test_a_source_that_is_silent_is_asked_once_a_minute_while_credentials_are_good(
    backend: Backend, endpoint: Start, keys: None, in_a_minute: Callable[[], None]
) -> None:
    started = endpoint(sts("AKIDASSUMED", minutes=12))
    urls = {"sts": started.url}
    given = {"region": "eu-west-1", "role_arn": ROLE, "endpoint_urls": urls, "connect_timeout": 0.3}
    assert key(backend(**given)) == "AKIDASSUMED"
    started.behaviour = silence
    in_a_minute()
    with takes(0.3):
        assert key(backend(**given)) == "AKIDASSUMED"
    with takes(0):
        assert key(backend(**given)) == "AKIDASSUMED"


def test_credentials_with_less_than_ten_minutes_have_to_be_new(backend: Backend, process: Process) -> None:
    process.gives("AKIDFIRST", in_minutes(9))
    assert key(backend()) == "AKIDFIRST"
    process.gives("AKIDSECOND", in_minutes(60))
    assert key(backend()) == "AKIDSECOND"


def test_credentials_with_less_than_ten_minutes_are_no_excuse_for_a_source_that_fails(
    backend: Backend, process: Process, tmp_path: Path
) -> None:
    process.gives("AKIDFIRST", in_minutes(9))
    assert key(backend()) == "AKIDFIRST"
    (tmp_path / "output.json").write_text("")
    with pytest.raises(errors.NoCredentials):
        key(backend())


# What AWS refuses, and who is stuck.


def test_refused_credentials_are_forgotten_by_all(backend: Backend, process: Process) -> None:
    process.gives("AKIDFIRST", in_minutes(60))
    assert key(backend()) == "AKIDFIRST"
    process.gives("AKIDSECOND", in_minutes(60))
    aws.forget(Settings())
    assert key(backend()) == "AKIDSECOND"


def test_a_late_refusal_leaves_the_new_credentials_to_others(backend: Backend, process: Process) -> None:
    process.gives("AKIDFIRST", in_minutes(60))
    early, late = backend(), backend()
    assert key(early) == key(late) == "AKIDFIRST"
    process.gives("AKIDSECOND", in_minutes(60))
    early.refused()
    assert key(backend()) == "AKIDSECOND"
    late.refused()
    assert key(backend()) == "AKIDSECOND"
    assert process.runs == 2


def test_who_is_stuck_with_the_question_does_not_keep_others_for_ever(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, process: Process
) -> None:
    monkeypatch.setattr(cache, "PATIENCE", 0.3)
    process.gives("AKIDFIRST", in_minutes(60))
    stuck = backend()
    with stuck._cache.lock(aws.CREDENTIALS, None) as alone:
        assert alone
        assert key(backend()) == "AKIDFIRST"


def test_an_interrupt_ends_waiting_for_what_another_one_asks(backend: Backend, process: Process) -> None:
    process.gives("AKIDFIRST", in_minutes(60))
    with backend()._cache.lock(aws.CREDENTIALS, None), cancelled() as check:
        backend().frozen_credentials(Wait(check, 20))
    assert process.runs == 0


def test_keys_that_nobody_can_share_are_not_waited_for(backend: Backend, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = x\n")
    first = backend()
    assert key(first) == "AKIDFILE"
    with first._cache.lock(aws.CREDENTIALS, None), takes(0):
        assert key(backend()) == "AKIDFILE"


@pytest.mark.parametrize("value", ["", "/dev/null/cache", "relative"])
def test_without_a_cache_each_backend_asks_for_itself(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, process: Process, value: str
) -> None:
    monkeypatch.setenv("AWSLAMBDA_CACHE", value)
    process.gives("AKIDFIRST", in_minutes(60))
    assert [key(backend()) for _ in range(2)] == ["AKIDFIRST"] * 2
    assert process.runs == 2


def test_a_cache_that_others_can_read_is_not_used(backend: Backend, process: Process) -> None:
    folder = Path(os.environ["AWSLAMBDA_CACHE"])
    folder.mkdir(0o755)
    process.gives("AKIDFIRST", in_minutes(60))
    assert [key(backend()) for _ in range(2)] == ["AKIDFIRST"] * 2
    assert process.runs == 2
    assert list(folder.iterdir()) == []


def test_who_fails_takes_what_another_one_has_found_meanwhile(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    who, other = backend(), backend()

    def fail(_: Wait) -> None:
        other._cache.put("region", {"name": "eu-west-1", "source": "instance metadata"})
        raise errors.RegionUnknown

    monkeypatch.setattr(who, "_find_region", fail)
    assert who.region(wait()) == ("eu-west-1", "instance metadata")
