"""The errors themselves: each tells SQL what happened, and a reader what to do."""

from __future__ import annotations

import re
import string
from typing import Any

import pytest
from awslambda import errors
from awslambda.errors import LambdaError


def below(base: type[LambdaError]) -> list[type[LambdaError]]:
    return [base, *(one for child in base.__subclasses__() for one in below(child))]


CLASSES = below(LambdaError)
HINTS_FROM_WHO_RAISES = {LambdaError, errors.InvalidArgument, errors.InvalidOption, errors.NotSupported}
SQLSTATES = {  # DESIGN.md, section 5; HV00D: docs of PostgreSQL, appendix A
    "FunctionError": "LA001",
    "FunctionTimedOut": "LA002",
    "Throttled": "LA003",
    "ServiceFailed": "LA004",
    "NoAnswer": "LA005",
    "ConnectFailed": "08001",
    "ConnectionBroke": "08006",
    "FunctionNotFound": "42704",
    "ServerNotFound": "42704",
    "AccessDenied": "42501",
    "ServerNotAllowed": "42501",
    "ResourceNotAllowed": "42501",
    "OptionNotAllowed": "42501",
    "NoCredentials": "28000",
    "CredentialsRefused": "28000",
    "RegionUnknown": "22023",
    "ServerNotChosen": "22023",
    "InvalidArgument": "22023",
    "InvalidOption": "HV00D",
    "InvalidJson": "22P02",
    "PayloadTooLarge": "54000",
    "NullArgument": "22004",
    "ResponseNotText": "22021",
    "NotSupported": "0A000",
}


def fields(kind: type[LambdaError]) -> dict[str, str]:
    """The fields of a class's message, with how each is formatted."""
    return {name: form or "" for _, name, form, _ in string.Formatter().parse(kind.__doc__ or "") if name}


def made(kind: type[LambdaError], **more: str) -> LambdaError:
    values: dict[str, Any] = {name: 7.5 if form else f"<{name}>" for name, form in fields(kind).items()}
    return kind(**values, **more)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_an_sqlstate_that_postgres_takes(kind: type[LambdaError]) -> None:
    assert re.fullmatch(r"[0-9A-Z]{5}", kind.sqlstate)
    assert kind.sqlstate[:2] not in ("00", "01", "02")  # success, warning, no data


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind is not LambdaError])
def test_every_error_has_the_documented_sqlstate(kind: type[LambdaError]) -> None:
    assert kind.sqlstate == SQLSTATES.get(kind.__name__, kind.sqlstate)


def test_every_documented_condition_has_its_class() -> None:
    assert {kind.__name__ for kind in CLASSES} >= SQLSTATES.keys()


@pytest.mark.parametrize("kind", CLASSES)
def test_the_message_is_the_docstring_filled_with_its_fields(kind: type[LambdaError]) -> None:
    message = str(made(kind))
    assert message
    assert "\n" not in message
    for name, form in fields(kind).items():
        assert ("7.5" if form else f"<{name}>") in message


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_a_docstring_of_its_own(kind: type[LambdaError]) -> None:
    assert kind.__dict__["__doc__"]
    if kind.__doc__ != "{reason}":
        assert [other for other in CLASSES if other.__doc__ == kind.__doc__] == [kind]


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if fields(kind)])
def test_a_value_with_braces_is_shown_as_it_is(kind: type[LambdaError]) -> None:
    if any(fields(kind).values()):
        return
    assert "{payload} {0} {" in str(kind(**dict.fromkeys(fields(kind), "{payload} {0} {")))


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind not in HINTS_FROM_WHO_RAISES])
def test_every_error_says_what_to_do(kind: type[LambdaError]) -> None:
    assert made(kind).hint.endswith(".")


@pytest.mark.parametrize("kind", CLASSES)
def test_who_raises_can_say_better_what_to_do(kind: type[LambdaError]) -> None:
    error = made(kind, hint="Do this.", detail="That happened.")
    assert (error.hint, error.detail) == ("Do this.", "That happened.")


def test_a_missing_field_is_found_by_the_test_not_by_the_user() -> None:
    with pytest.raises(KeyError):
        errors.FunctionNotFound(function="f")
