"""Who we are for AWS, where AWS is, and what happens while that is found out."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore
import botocore.session
import pytest
from awslambda import aws, errors
from awslambda.connection import Proxy
from awslambda.errors import LambdaError
from awslambda.settings import Settings
from awslambda.waits import Wait
from botocore.config import Config

from tests.endpoints import Behaviour, Endpoint, answer, black_hole, break_off, closed_port, hang_up, in_turn, silence
from tests.unit.cancelling import cancelled, nothing, takes
from tests.unit.conftest import ACCESS_KEY, SECRET_KEY, TOKEN
from tests.unit.services import CALLER, Process, form, in_minutes, instance, metadata, sts, sts_refusal

Start = Callable[..., Endpoint]

ROLE = "arn:aws:iam::123456789012:role/reports"


def wait(seconds: float = 20) -> Wait:
    return Wait(nothing, seconds)


def identity(**options: Any) -> aws.Identity:
    return aws.Identity(Settings(**options))


def access_key(who: aws.Identity) -> str:
    return str(who.frozen_credentials(wait()).access_key)


@pytest.fixture
def on_instance(monkeypatch: pytest.MonkeyPatch, endpoint: Start) -> Callable[[Behaviour], Endpoint]:
    """Makes this host an instance whose metadata service behaves like that."""

    def start(behaviour: Behaviour) -> Endpoint:
        started = endpoint(behaviour)
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", started.url)
        monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "30")
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        return started

    return start


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """AWS's configuration file, which does not exist yet."""
    return tmp_path / "config"


@pytest.fixture
def process(tmp_path: Path, config: Path) -> Process:
    return Process(tmp_path, config)


# Credentials.


@pytest.mark.usefixtures("keys")
def test_keys_of_the_environment_are_used() -> None:
    who = identity()
    assert tuple(who.frozen_credentials(wait()))[:3] == (ACCESS_KEY, SECRET_KEY, TOKEN)
    assert who.credentials_source == "env"
    assert who.credentials_expiry is None


def test_without_any_credentials_the_error_says_what_was_tried() -> None:
    with pytest.raises(errors.NoCredentials) as caught:
        identity().frozen_credentials(wait())
    assert caught.value.sqlstate == "28000"
    for method in ("env", "shared-credentials-file", "iam-role"):
        assert method in str(caught.value)


def test_the_role_of_the_instance_is_used(on_instance: Callable[[Behaviour], Endpoint]) -> None:
    started = on_instance(metadata(instance(access_key="AKIDROLE")))
    who = identity()
    assert access_key(who) == "AKIDROLE"
    assert who.credentials_source == "iam-role"
    assert who.credentials_expiry is not None
    asked = len(started.requests)
    assert access_key(who) == "AKIDROLE"
    assert len(started.requests) == asked


@pytest.mark.usefixtures("keys")
def test_a_profile_wins_over_keys_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = AKIDDEFAULT\naws_secret_access_key = x\n"
        "[reports]\naws_access_key_id = AKIDREPORTS\naws_secret_access_key = x\n"
    )
    assert access_key(identity(profile="reports")) == "AKIDREPORTS"


@pytest.mark.parametrize(
    "use",
    [
        lambda who: who.frozen_credentials(wait()),
        lambda who: who.region(wait()),
        lambda who: who.url("lambda", "eu-west-1", wait()),
        lambda who: who.caller(wait(), "eu-west-1", 20),
    ],
    ids=["credentials", "region", "url", "caller"],
)
@pytest.mark.parametrize("options", [{}, {"endpoint_urls": {"": "https://127.0.0.1:1"}}], ids=["AWS", "https"])
@pytest.mark.usefixtures("keys")
def test_a_profile_that_does_not_exist_is_named(use: Callable[[aws.Identity], object], options: dict[str, Any]) -> None:
    with pytest.raises(errors.NoCredentials, match="nobody"):
        use(identity(profile="nobody", **options))


def test_credentials_are_refreshed_before_they_expire(process: Process) -> None:
    process.gives("AKIDFIRST", in_minutes(5))
    who = identity()
    assert access_key(who) == "AKIDFIRST"
    process.gives("AKIDSECOND", in_minutes(60))
    assert access_key(who) == "AKIDSECOND"


def test_credentials_that_last_are_not_asked_for_again(process: Process) -> None:
    process.gives("AKIDFIRST", in_minutes(60))
    who = identity()
    assert [access_key(who) for _ in range(3)] == ["AKIDFIRST"] * 3
    assert process.runs == 1


def test_a_credential_process_that_is_not_there_is_named(config: Path) -> None:
    config.write_text("[default]\ncredential_process = /no/such/program\n")
    with pytest.raises(errors.NoCredentials, match="/no/such/program"):
        identity().frozen_credentials(wait())


@pytest.mark.parametrize("command", ["/bin/false", "/bin/echo oops", "/bin/echo {}"])
def test_a_credential_process_that_fails_is_an_error(config: Path, command: str) -> None:
    config.write_text(f"[default]\ncredential_process = {command}\n")
    with pytest.raises(errors.NoCredentials):
        identity().frozen_credentials(wait())


@pytest.mark.parametrize("content", ["no section", "[default\n", "[default]\nregion"])
def test_a_broken_configuration_file_is_an_error(config: Path, content: str) -> None:
    config.write_text(content)
    with pytest.raises(errors.NoCredentials, match="config"):
        identity().frozen_credentials(wait())


@pytest.mark.parametrize("behaviour", [answer(400, b""), answer(404, b""), answer(500, b""), hang_up])
def test_an_instance_metadata_service_that_fails_gives_no_credentials(
    on_instance: Callable[[Behaviour], Endpoint], behaviour: Behaviour
) -> None:
    on_instance(behaviour)
    with pytest.raises(errors.NoCredentials):
        identity().frozen_credentials(wait())


# Assuming a role.


@pytest.fixture
def reports(endpoint: Start, keys: None) -> Callable[..., tuple[aws.Identity, Endpoint]]:
    """An identity that assumes a role through an STS that behaves like that."""

    def start(behaviour: Behaviour, **options: Any) -> tuple[aws.Identity, Endpoint]:
        started = endpoint(behaviour)
        given = {"region": "eu-west-1", "role_arn": ROLE, "endpoint_urls": {"sts": started.url}, "max_attempts": 1}
        return identity(**{**given, **options}), started

    return start


Reports = Callable[..., tuple[aws.Identity, Endpoint]]


def test_a_role_is_assumed_with_the_credentials_that_were_found(reports: Reports) -> None:
    who, started = reports(sts("AKIDASSUMED"))
    assert tuple(who.frozen_credentials(wait()))[:3] == ("AKIDASSUMED", "secret-of-the-role", "token-of-the-role")
    assert who.credentials_source == "assume-role"
    (received,) = started.requests
    assert f"Credential={ACCESS_KEY}/" in received.headers["authorization"]
    assert "/eu-west-1/sts/" in received.headers["authorization"]
    asked = form(received)
    assert (asked["Action"], asked["RoleArn"]) == ("AssumeRole", ROLE)
    assert asked["RoleSessionName"]
    assert "ExternalId" not in asked


def test_the_external_id_is_sent(reports: Reports) -> None:
    who, started = reports(sts(), external_id="the-external-id")
    access_key(who)
    assert form(started.requests[0])["ExternalId"] == "the-external-id"


def test_a_role_is_assumed_once_for_as_long_as_it_lasts(reports: Reports) -> None:
    who, started = reports(sts(minutes=60))
    assert [access_key(who) for _ in range(3)] == ["AKIDASSUMED"] * 3
    assert len(started.requests) == 1


def test_a_role_is_assumed_again_before_it_expires(reports: Reports) -> None:
    who, started = reports(in_turn(sts("AKIDFIRST", minutes=5), sts("AKIDSECOND", minutes=60)))
    assert [access_key(who) for _ in range(3)] == ["AKIDFIRST", "AKIDSECOND", "AKIDSECOND"]
    assert len(started.requests) == 2


def test_a_role_without_credentials_to_assume_it_with_says_so(
    monkeypatch: pytest.MonkeyPatch, reports: Reports
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    who, started = reports(sts())
    with pytest.raises(errors.NoCredentials):
        who.frozen_credentials(wait())
    assert started.requests == []


def test_a_role_is_assumed_in_the_region_of_the_instance_if_no_other_is_known(
    on_instance: Callable[[Behaviour], Endpoint], reports: Reports
) -> None:
    on_instance(metadata(instance("eu-north-1")))
    who, started = reports(sts(), region=None)
    access_key(who)
    assert "/eu-north-1/sts/" in started.requests[0].headers["authorization"]


def test_a_role_without_any_region_says_that_the_region_is_missing(reports: Reports) -> None:
    who, _ = reports(sts(), region=None)
    with pytest.raises(errors.RegionUnknown):
        who.frozen_credentials(wait())


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDenied", errors.AccessDenied),
        (403, "ExpiredToken", errors.CredentialsRefused),
        (403, "InvalidClientTokenId", errors.CredentialsRefused),
        (403, "SignatureDoesNotMatch", errors.CredentialsRefused),
        (400, "Throttling", errors.CredentialsUnavailable),
        (500, "InternalFailure", errors.CredentialsUnavailable),
        (503, "ServiceUnavailable", errors.CredentialsUnavailable),
    ],
)
def test_what_sts_says_is_told(reports: Reports, status: int, code: str, kind: type[LambdaError]) -> None:
    who, started = reports(sts_refusal(status, code, "said by STS"))
    with pytest.raises(LambdaError) as caught:
        who.frozen_credentials(wait())
    assert type(caught.value) is kind
    assert ("said by STS" if status < 500 and code != "Throttling" else code) in str(caught.value)
    assert len(started.requests) == 1


def test_a_token_that_sts_shows_is_not_shown_again(reports: Reports) -> None:
    message = (
        "The request signature we calculated does not match the signature you provided.\n\nThe Canonical String for "
        f"this request should have been\n'POST\n/\n\nx-amz-security-token:{TOKEN}\n\nhost\n0'"
    )
    who, _ = reports(sts_refusal(403, "SignatureDoesNotMatch", message))
    with pytest.raises(errors.CredentialsRefused, match="does not match the signature") as caught:
        who.frozen_credentials(wait())
    assert TOKEN not in str(caught.value) + caught.value.detail


@pytest.mark.usefixtures("keys")
def test_an_sts_that_cannot_be_reached_is_named_in_plain_words() -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    who = identity(region="eu-west-1", role_arn=ROLE, endpoint_urls={"sts": url}, max_attempts=1)
    with pytest.raises(errors.ConnectFailed) as caught:
        who.frozen_credentials(wait())
    assert url in str(caught.value)
    assert "refused" in str(caught.value)
    assert " object at 0x" not in str(caught.value)


@pytest.mark.usefixtures("keys")
def test_an_sts_that_is_a_black_hole_is_no_lack_of_credentials() -> None:
    with black_hole() as port, pytest.raises(errors.ConnectFailed, match=f"127.0.0.1:{port}"):
        identity(
            region="eu-west-1",
            role_arn=ROLE,
            endpoint_urls={"sts": f"http://127.0.0.1:{port}"},
            connect_timeout=0.2,
            max_attempts=1,
        ).frozen_credentials(wait())


@pytest.mark.parametrize("behaviour", [hang_up, break_off], ids=["hang up", "break off"])
def test_an_sts_that_breaks_off_is_no_lack_of_credentials(reports: Reports, behaviour: Behaviour) -> None:
    who, _ = reports(behaviour)
    with pytest.raises(errors.ConnectFailed):
        who.frozen_credentials(wait())


def test_sts_is_asked_once_since_the_caller_tries_again(reports: Reports) -> None:
    who, started = reports(sts_refusal(500, "InternalFailure"), max_attempts=2)
    with pytest.raises(errors.CredentialsUnavailable):
        who.frozen_credentials(wait())
    assert len(started.requests) == 1


class Advised:
    """Credentials that are good for minutes yet, and whose refresh hangs."""

    _mandatory_refresh_timeout = 600
    method = "assume-role"

    def __init__(self) -> None:
        self.asked = threading.Event()

    def refresh_needed(self, refresh_in: int | None = None) -> bool:
        return refresh_in is None

    def get_frozen_credentials(self) -> str:
        if not self.asked.is_set():  # as botocore's lock does: one thread refreshes, others go on
            self.asked.set()
            threading.Event().wait(5)
        return "those at hand"


def test_credentials_that_are_still_good_are_used_while_their_source_is_silent() -> None:
    who = identity(connect_timeout=0.2)
    who._credentials = Advised()
    with takes(0.2):
        assert who.frozen_credentials(wait()) == "those at hand"
    with takes(0):
        assert who.frozen_credentials(wait()) == "those at hand"
    assert who.usable


class Expiring(Advised):
    """Credentials that botocore refreshes when they have less than 15 minutes."""

    _advisory_refresh_timeout = 900

    def __init__(self, seconds: float) -> None:
        self.times = 0
        self._expiry_time = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)

    def refresh_needed(self, refresh_in: int | None = None) -> bool:
        left = self._expiry_time - datetime.datetime.now(datetime.timezone.utc)
        return left.total_seconds() < (self._advisory_refresh_timeout if refresh_in is None else refresh_in)

    def get_frozen_credentials(self) -> str:
        self.times += 1
        if self.refresh_needed():
            self._expiry_time += datetime.timedelta(hours=1)
        return f"no. {self.times}"


@pytest.mark.parametrize(
    ("left", "soon", "later"),
    [(910.0, 5.0, 11.0), (3600.0, aws.ASK_CREDENTIALS - 5, aws.ASK_CREDENTIALS + 1)],
    ids=["when they have to be refreshed", "after a minute"],
)
def test_credentials_are_asked_again_in_time(
    monkeypatch: pytest.MonkeyPatch, left: float, soon: float, later: float
) -> None:
    who, now = identity(), time.time()
    who._credentials = Expiring(left)
    for after, wanted in [(0, "no. 1"), (soon, "no. 1"), (later, "no. 2")]:
        monkeypatch.setattr(time, "time", lambda after=after: now + after)
        assert who.frozen_credentials(wait()) == wanted


def test_credentials_that_do_not_say_when_they_expire_are_asked_each_time() -> None:
    who = identity()
    who._credentials = Expiring(3600)
    del who._credentials._expiry_time
    who._credentials.refresh_needed = lambda refresh_in=None: False
    assert [who.frozen_credentials(wait()) for _ in range(2)] == ["no. 1", "no. 2"]


def test_the_caller_is_who_sts_knows(reports: Reports) -> None:
    who, started = reports(sts("AKIDASSUMED"))
    assert who.caller(wait(), "eu-west-1", 20) == CALLER
    assert [form(received)["Action"] for received in started.requests] == ["AssumeRole", "GetCallerIdentity"]
    assert "Credential=AKIDASSUMED/" in started.requests[1].headers["authorization"]


# Whose account.


@pytest.fixture
def user(endpoint: Start, keys: None) -> Callable[[Behaviour], tuple[aws.Identity, Endpoint]]:
    """An identity without a role, and an STS that behaves like that."""

    def start(behaviour: Behaviour) -> tuple[aws.Identity, Endpoint]:
        started = endpoint(behaviour)
        return identity(endpoint_urls={"sts": started.url}), started

    return start


User = Callable[[Behaviour], tuple[aws.Identity, Endpoint]]


def test_the_account_is_asked_of_sts_once(user: User) -> None:
    who, started = user(sts())
    assert [who.account(wait(), "eu-west-1", 20) for _ in range(2)] == ["123456789012"] * 2
    (asked,) = started.requests
    assert form(asked)["Action"] == "GetCallerIdentity" and "/eu-west-1/sts/" in asked.headers["authorization"]


def test_the_account_of_a_role_is_in_its_arn(reports: Reports) -> None:
    who, started = reports(sts_refusal(403, "AccessDenied"))
    assert who.account(wait(), "eu-west-1", 20) == "123456789012"
    assert not started.requests


def test_an_account_that_the_credentials_know_is_not_asked_for(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCOUNT_ID", "210987654321")
    who, started = user(sts())
    assert who.account(wait(), "eu-west-1", 20) == "210987654321"
    assert not started.requests


@pytest.mark.parametrize(
    ("behaviour", "seconds"), [(sts_refusal(403, "AccessDenied"), 0), (hang_up, 0), (silence, 0.3)]
)
def test_an_sts_that_does_not_say_the_account_is_left_alone_for_a_while(
    user: User, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour, seconds: float
) -> None:
    who, started = user(behaviour)
    with takes(seconds):
        assert [who.account(wait(), "eu-west-1", 0.3) for _ in range(3)] == [None] * 3
    assert len(started.requests) == 1
    assert who.usable, "its credentials are as good as before"
    monkeypatch.setattr(aws, "ASK_AGAIN", 0.0)
    who._ask_account_from = 0.0
    started.behaviour = sts()
    assert who.account(wait(), "eu-west-1", 20) == "123456789012"


def test_an_interrupt_ends_asking_for_the_account_and_the_next_asks_again(user: User) -> None:
    who, started = user(silence)
    with cancelled(once=lambda: started.requests) as check:
        who.account(Wait(check, 20), "eu-west-1", 20)
    started.behaviour = sts()
    assert who.account(wait(), "eu-west-1", 20) == "123456789012"


@pytest.mark.usefixtures("keys")
def test_an_endpoint_that_is_none_is_no_more_than_an_unknown_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "nonsense")
    assert identity().account(wait(), "eu-west-1", 20) is None


# While it is found out.

Ask = Callable[[aws.Identity, Wait], object]


def ask_credentials(who: aws.Identity, until: Wait) -> object:
    return who.frozen_credentials(until)


def ask_region(who: aws.Identity, until: Wait) -> object:
    return who.region(until)


@pytest.mark.parametrize("ask", [ask_credentials, ask_region])
def test_an_interrupt_ends_asking_the_instance_metadata_service(
    on_instance: Callable[[Behaviour], Endpoint], ask: Ask
) -> None:
    started = on_instance(silence)
    who = identity()
    with cancelled(once=lambda: started.requests) as check:
        ask(who, Wait(check, 20))
    assert not who.usable


def test_an_interrupt_ends_asking_sts(reports: Reports) -> None:
    who, started = reports(silence)
    with cancelled(once=lambda: started.requests) as check:
        who.frozen_credentials(Wait(check, 20))
    assert not who.usable


def test_an_interrupt_ends_asking_for_the_caller(reports: Reports) -> None:
    who, started = reports(in_turn(sts(), silence))
    with cancelled(once=lambda: len(started.requests) > 1) as check:
        who.caller(Wait(check, 20), "eu-west-1", 20)


def test_an_interrupt_ends_a_refresh(reports: Reports) -> None:
    who, started = reports(in_turn(sts(minutes=5), silence))
    access_key(who)
    with cancelled(once=lambda: len(started.requests) == 2) as check:
        who.frozen_credentials(Wait(check, 20))
    assert not who.usable


def test_an_interrupt_ends_a_credential_process(tmp_path: Path, config: Path) -> None:
    script, started = tmp_path / "slow", tmp_path / "started"
    script.write_text(f"touch {started}\nexec sleep 3\n")
    config.write_text(f"[default]\ncredential_process = /bin/sh {script}\n")
    with cancelled(once=started.exists) as check:
        identity().frozen_credentials(Wait(check, 20))


@pytest.mark.parametrize("ask", [ask_credentials, ask_region])
def test_a_silent_instance_metadata_service_is_waited_for_until_the_deadline(
    on_instance: Callable[[Behaviour], Endpoint], ask: Ask
) -> None:
    on_instance(silence)
    who = identity()
    with takes(0.3), pytest.raises(errors.ConnectFailed, match="in time"):
        ask(who, wait(0.3))
    assert not who.usable


def test_an_interrupted_identity_is_not_used_again(on_instance: Callable[[Behaviour], Endpoint]) -> None:
    started = on_instance(in_turn(silence, metadata(instance(access_key="AKIDROLE"))))
    first = aws.identity(Settings())
    with cancelled(once=lambda: started.requests) as check:
        first.frozen_credentials(Wait(check, 20))
    second = aws.identity(Settings())
    assert second is not first
    assert access_key(second) == "AKIDROLE"
    assert aws.identity(Settings()) is second


@pytest.mark.usefixtures("keys")
def test_an_error_leaves_the_identity_usable() -> None:
    who = identity(profile="nobody")
    with pytest.raises(errors.NoCredentials):
        who.frozen_credentials(wait())
    assert who.usable


# Which identity.


def test_the_same_options_share_an_identity_whatever_the_server_is_called() -> None:
    one, other = Settings(server="a", region="eu-west-1"), Settings(server="b", region="eu-west-1", max_attempts=7)
    assert aws.identity(one) is aws.identity(other)


@pytest.mark.parametrize(
    "change",
    [
        {"region": "eu-west-2"},
        {"profile": "p"},
        {"role_arn": ROLE},
        {"role_arn": ROLE, "external_id": "abc"},
        {"ca_bundle": "/x"},
        {"endpoint_urls": {"": "https://h"}},
        {"endpoint_urls": {"sts": "https://h"}},
    ],
    ids=str,
)
def test_other_options_are_another_identity(change: dict[str, Any]) -> None:
    plain = Settings(region="eu-west-1")
    assert aws.identity(plain) is not aws.identity(plain._replace(**change))


def test_a_forgotten_identity_is_made_anew() -> None:
    chosen = Settings(region="eu-west-1")
    other = aws.identity(Settings(region="eu-west-2"))
    first = aws.identity(chosen)
    aws.forget(chosen)
    assert aws.identity(chosen) is not first
    assert aws.identity(Settings(region="eu-west-2")) is other
    aws.forget(Settings(region="eu-west-3"))  # nothing to forget


# The region.


def test_the_option_region_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert identity(region="eu-west-1").region(wait()) == ("eu-west-1", "server option region")


def test_the_environment_comes_before_the_profile(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    config.write_text("[default]\nregion = eu-west-3\n")
    assert identity().region(wait())[0] == "eu-west-3"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert identity().region(wait())[0] == "eu-west-2"


def test_a_profile_has_its_own_region(config: Path) -> None:
    config.write_text("[default]\nregion = eu-west-3\n[profile reports]\nregion = eu-south-2\n")
    assert identity(profile="reports").region(wait())[0] == "eu-south-2"


def test_the_profile_comes_before_the_instance(on_instance: Callable[[Behaviour], Endpoint], config: Path) -> None:
    started = on_instance(metadata(instance("eu-north-1")))
    config.write_text("[default]\nregion = eu-west-3\n")
    assert identity().region(wait())[0] == "eu-west-3"
    assert started.requests == []


def test_the_region_of_the_instance_is_asked_for_once_and_by_version_2_only(
    on_instance: Callable[[Behaviour], Endpoint],
) -> None:
    started = on_instance(metadata(instance("us-west-2")))
    who = identity()
    assert [who.region(wait()) for _ in range(3)] == [("us-west-2", "instance metadata")] * 3
    assert [(received.method, received.path) for received in started.requests] == [
        ("PUT", "/latest/api/token"),
        ("GET", "/latest/meta-data/placement/region"),
    ]
    assert started.requests[1].headers["x-aws-ec2-metadata-token"] == "the-token"


@pytest.mark.parametrize(
    "behaviour",
    [metadata({}), answer(400, b""), answer(403, b""), answer(404, b""), answer(500, b""), answer(200, b""), hang_up],
    ids=["no document", "400", "403", "404", "500", "empty", "hang up"],
)
def test_an_instance_that_does_not_tell_its_region_leaves_it_unknown(
    on_instance: Callable[[Behaviour], Endpoint], behaviour: Behaviour
) -> None:
    on_instance(behaviour)
    with pytest.raises(errors.RegionUnknown):
        identity().region(wait())


def test_without_any_region_the_error_says_what_was_tried() -> None:
    with pytest.raises(errors.RegionUnknown) as caught:
        identity().region(wait())
    assert caught.value.sqlstate == "22023"
    for place in ("ARN", "server option", "AWS_DEFAULT_REGION", "profile", "instance metadata"):
        assert place in caught.value.hint


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("eu-west-1", "aws"),
        ("mx-central-9", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("us-isob-east-1", "aws-iso-b"),
        ("eusc-de-east-1", "aws-eusc"),
    ],
)
def test_a_region_is_in_a_partition(region: str, partition: str) -> None:
    assert identity().partition(region) == partition


def test_a_region_without_a_partition_is_a_bad_argument_not_a_lack_of_credentials() -> None:
    with pytest.raises(errors.InvalidArgument, match="zz-east-1"):
        identity().partition("zz-east-1")


# Endpoints.

REGIONS = [
    "us-east-1",
    "us-west-2",
    "eu-west-1",
    "eu-central-2",
    "ap-southeast-5",
    "ap-northeast-3",
    "ca-west-1",
    "il-central-1",
    "me-central-1",
    "sa-east-1",
    "cn-north-1",
    "cn-northwest-1",
    "us-gov-east-1",
    "us-gov-west-1",
]


@pytest.fixture(scope="module")
def reference() -> Any:
    """botocore's session, which has read its data once for all cases."""
    return botocore.session.Session()


@pytest.mark.parametrize(
    ("variable", "option"),
    [
        ("", {}),
        ("AWS_USE_FIPS_ENDPOINT", {"use_fips_endpoint": True}),
        ("AWS_USE_DUALSTACK_ENDPOINT", {"use_dualstack_endpoint": True}),
    ],
    ids=["plain", "FIPS", "dual stack"],
)
def test_aws_is_where_botocores_client_finds_it(
    monkeypatch: pytest.MonkeyPatch, reference: Any, variable: str, option: dict[str, bool]
) -> None:
    if variable:
        monkeypatch.setenv(variable, "true")
    who = identity()
    ours, theirs = {}, {}
    for region in REGIONS:
        ours[region] = who.url("lambda", region, wait()).text
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
        client = reference.create_client("lambda", region_name=region, config=Config(**option), **keys)
        theirs[region] = client.meta.endpoint_url
        client.close()
    assert ours == theirs


@pytest.mark.parametrize(
    ("region", "variables", "url"),
    [
        ("eu-west-1", [], "https://lambda.eu-west-1.amazonaws.com"),
        ("cn-north-1", [], "https://lambda.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", [], "https://lambda.us-gov-west-1.amazonaws.com"),
        ("us-east-1", ["FIPS"], "https://lambda-fips.us-east-1.amazonaws.com"),
        ("eu-west-1", ["DUALSTACK"], "https://lambda.eu-west-1.api.aws"),
        ("us-east-1", ["FIPS", "DUALSTACK"], "https://lambda-fips.us-east-1.api.aws"),
    ],
)
def test_aws_is_where_its_documentation_says(
    monkeypatch: pytest.MonkeyPatch, region: str, variables: list[str], url: str
) -> None:
    for variable in variables:
        monkeypatch.setenv(f"AWS_USE_{variable}_ENDPOINT", "true")
    found = identity().url("lambda", region, wait())
    assert found.text == url
    assert (found.endpoint.tls, found.endpoint.host, found.endpoint.port) == (True, url.removeprefix("https://"), 443)


def test_an_endpoint_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    found = identity().url("lambda", "eu-west-1", wait())
    assert found.text == "http://127.0.0.1:4566"
    assert (found.endpoint.tls, found.endpoint.host, found.endpoint.port) == (False, "127.0.0.1", 4566)


def test_the_services_own_variable_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", "https://lambda.example/path/")
    who = identity()
    assert who.url("lambda", "eu-west-1", wait()).text == "https://lambda.example/path"
    assert who.url("sts", "eu-west-1", wait()).text == "http://127.0.0.1:4566"


def test_the_servers_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", "https://environment.example")
    assert (
        identity(endpoint_urls={"": "https://option.example"}).url("lambda", "eu-west-1", wait()).text
        == "https://option.example"
    )


def test_the_endpoint_of_a_profile_is_used(config: Path) -> None:
    config.write_text(
        "[profile reports]\nendpoint_url = https://all.example\nservices = local\n"
        "[services local]\nlambda =\n  endpoint_url = https://lambda.example\n"
    )
    who = identity(profile="reports")
    assert who.url("lambda", "eu-west-1", wait()).text == "https://lambda.example"
    assert who.url("sts", "eu-west-1", wait()).text == "https://all.example"


def test_configured_endpoints_can_be_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://environment.example")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert identity().url("lambda", "eu-west-1", wait()).text == "https://lambda.eu-west-1.amazonaws.com"


@pytest.mark.parametrize("url", ["127.0.0.1:4566", "http://127.0.0.1:port", "http://[::1", "https://", "lambda"])
def test_an_endpoint_of_the_environment_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(errors.InvalidArgument) as caught:
        identity().url("lambda", "eu-west-1", wait())
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize("url", ["http://user:hunter2@127.0.0.1:port", "http://user:hunter2@[::1", "user:hunter2@host"])
def test_a_password_in_an_endpoint_of_the_environment_is_never_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(errors.InvalidArgument) as caught:
        identity().url("lambda", "eu-west-1", wait())
    assert "hunter2" not in str(caught.value) + caught.value.detail + caught.value.hint


def test_each_region_has_its_own_endpoint() -> None:
    who = identity()
    assert who.url("lambda", "eu-west-1", wait()) != who.url("lambda", "eu-west-2", wait())


def test_certificates_are_those_of_the_option_the_environment_the_profile_or_botocore(
    monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    def bundle(**options: Any) -> str:
        return identity(**options).url("lambda", "eu-west-1", wait()).endpoint.ca_bundle

    assert bundle() == str(Path(botocore.__file__).with_name("cacert.pem"))
    config.write_text("[default]\nca_bundle = /profile.pem\n")
    assert bundle() == "/profile.pem"
    monkeypatch.setenv("AWS_CA_BUNDLE", "/environment.pem")
    assert bundle() == "/environment.pem"
    assert bundle(ca_bundle="/option.pem") == "/option.pem"


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({}, "https://lambda.example", None),
        ({"HTTPS_PROXY": "http://proxy.example:3128"}, "https://lambda.example", Proxy("proxy.example", 3128)),
        (
            {"HTTPS_PROXY": "http://user:p%40ss@proxy.example"},
            "https://lambda.example",
            Proxy("proxy.example", 80, "Basic dXNlcjpwQHNz"),
        ),
        ({"https_proxy": "proxy.example:3128"}, "https://lambda.example", Proxy("proxy.example", 3128)),
        ({"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": ".example"}, "https://lambda.example", None),
        ({"HTTPS_PROXY": "http://proxy.example:3128"}, "http://127.0.0.1:4566", None),
        ({"HTTP_PROXY": "http://proxy.example:3128"}, "https://lambda.example", None),
    ],
)
def test_tls_goes_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: Proxy | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert identity(endpoint_urls={"": url}).url("lambda", "eu-west-1", wait()).endpoint.proxy == proxy


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://user:hunter2@proxy.example",
        "https://user:hunter2@proxy.example",
        "http://user:hunter2@proxy.example:port",
        "http://user:hunter2@[::1",
        "http://",
    ],
)
def test_a_proxy_that_cannot_be_one_is_refused_and_its_password_never_shown(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(errors.InvalidArgument, match="HTTPS_PROXY") as caught:
        identity().url("lambda", "eu-west-1", wait())
    assert "hunter2" not in str(caught.value) + caught.value.hint


def test_sts_is_reached_with_the_servers_certificates(endpoint: Start, keys: None, certificate: Path) -> None:
    started = endpoint(sts(), certificate=certificate)
    given = {"region": "eu-west-1", "role_arn": ROLE, "endpoint_urls": {"sts": started.url}, "max_attempts": 1}
    with pytest.raises(errors.ConnectFailed):
        identity(**given).frozen_credentials(wait())
    assert started.requests == []
    assert access_key(identity(**given, ca_bundle=str(certificate))) == "AKIDASSUMED"


def test_versions_say_which_files_were_loaded() -> None:
    versions = aws.versions()
    assert versions["botocore"] == f"{botocore.__version__} from {botocore.__file__}"
    assert "boto3/__init__.py" in versions["boto3"]
