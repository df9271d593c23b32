"""The program awslambda: its command line, what it prints, how it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import awslambda
import pytest
from awslambda.__main__ import main

from tests.endpoints import Endpoint, answer, closed_port
from tests.unit.conftest import SECRET_KEY, TOKEN
from tests.unit.services import CALLER
from tests.unit.test_diagnostics import NAMES, now, services

Start = Callable[..., Endpoint]
Capture = pytest.CaptureFixture[str]


def wrong(arguments: list[str], capsys: Capture) -> str:
    """What a wrong command line prints, on stderr only; it ends with 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: awslambda")
    return captured.err


@pytest.mark.usefixtures("keys")
def test_doctor_ends_with_0_where_all_is_well(endpoint: Start, capsys: Capture) -> None:
    url = endpoint(services()).url
    assert main(["doctor", "-o", f"endpoint_url={url}", "--option", "region=eu-west-1"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert [line.split()[:2] for line in lines] == [["ok", name] for name in NAMES]
    assert any(line.startswith("ok      identity    " + CALLER) for line in lines)
    assert SECRET_KEY not in captured.out and TOKEN not in captured.out


@pytest.mark.usefixtures("keys")
def test_doctor_ends_with_1_and_a_hint_where_something_is_wrong(capsys: Capture) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    options = [f"endpoint_url={url}", "region=eu-west-1", "max_attempts=1"]
    assert main(["doctor", *(part for option in options for part in ("-o", option))]) == 1
    lines = capsys.readouterr().out.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("error   endpoint")]
    assert url in lines[at] and "refused" in lines[at]
    assert lines[at + 1].startswith(" " * 20) and "endpoint_url" in lines[at + 1]
    assert any(line.startswith("ok      credentials") for line in lines)


@pytest.mark.usefixtures("keys")
def test_a_warning_is_no_failure(endpoint: Start, capsys: Capture) -> None:
    url = endpoint(services(answer(200, {}))).url
    assert main(["doctor", "-o", f"endpoint_url={url}", "-o", "region=eu-west-1"]) == 0
    assert "\nwarning clock " in capsys.readouterr().out


def test_one_error_among_warnings_is_a_failure(endpoint: Start, capsys: Capture) -> None:
    url = endpoint(services(answer(200, {}))).url
    assert main(["doctor", "-o", f"endpoint_url={url}", "-o", "region=eu-west-1"]) == 1
    out = capsys.readouterr().out
    assert "\nerror   credentials " in out and "\nwarning clock " in out


@pytest.mark.usefixtures("keys")
def test_a_value_may_have_an_equals_sign(endpoint: Start, capsys: Capture) -> None:
    url = endpoint(services(answer(200, {}, Date=now()))).url + "/a=b"
    assert main(["doctor", "-o", f"endpoint_url={url}", "-o", "region=eu-west-1"]) in (0, 1)
    assert f"{url} answered" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["20", "20s", "20000ms", "20.5"])
@pytest.mark.usefixtures("keys")
def test_times_are_read_as_in_create_server(endpoint: Start, capsys: Capture, value: str) -> None:
    url = endpoint(services()).url
    options = [f"endpoint_url={url}", "region=eu-west-1", f"connect_timeout={value}", f"request_timeout={value}"]
    assert main(["doctor", *(part for option in options for part in ("-o", option))]) == 0


@pytest.mark.parametrize("arguments", [[], ["cure"], ["doctor", "now"], ["doctor", "-o"]], ids=str)
def test_a_wrong_command_line_ends_with_2_and_how_it_should_be(arguments: list[str], capsys: Capture) -> None:
    wrong(arguments, capsys)


@pytest.mark.parametrize("option", ["region", "ab", ""])
def test_an_option_without_a_value_says_how_one_looks(option: str, capsys: Capture) -> None:
    assert "NAME=VALUE" in wrong(["doctor", "-o", option], capsys)


def test_an_unknown_option_lists_the_valid_ones(capsys: Capture) -> None:
    said = wrong(["doctor", "-o", "regoin=eu-west-1"], capsys)
    assert "'regoin'" in said and "role_arn" in said


@pytest.mark.parametrize(
    "option",
    ["region=mars", "connect_timeout=soon", "connect_timeout=0", "request_timeout=nan", "endpoint_url=http://example"],
)
def test_a_bad_value_says_what_it_must_be(option: str, capsys: Capture) -> None:
    said = wrong(["doctor", "-o", option], capsys)
    assert repr(option.split("=")[1]) in said and "must be" in said


def test_a_message_without_a_hint_ends_properly(capsys: Capture) -> None:
    said = wrong(["doctor", "-o", "external_id=abc"], capsys)
    assert "role_arn" in said
    assert not said.rstrip("\n").endswith(" ")


def test_the_version_is_told(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"awslambda {awslambda.__version__}\n"


def test_the_help_names_the_commands(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "doctor" in capsys.readouterr().out


def test_python_dash_m_is_the_program() -> None:
    folder = Path(awslambda.__file__).parent.parent
    ended = subprocess.run(
        [sys.executable, "-m", "awslambda", "--version"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert ended.stdout == f"awslambda {awslambda.__version__}\n"
