"""Names and ARNs of functions, and what a server's allowed_resources cover."""

from __future__ import annotations

import fnmatch
import string
import time

import pytest
from awslambda import errors, resources
from awslambda.resources import Target
from hypothesis import assume, given, settings
from hypothesis import strategies as st

NAME_CHARACTERS = string.ascii_letters + string.digits + "-_"
PARTITIONS = ("aws", "aws-cn", "aws-us-gov", "aws-iso-b", "aws-eusc")
REGIONS = ("eu-west-1", "us-gov-west-1", "cn-northwest-1", "ap-southeast-12", "us-isob-east-1", "eusc-de-east-1")

names = st.text(NAME_CHARACTERS, min_size=1, max_size=64)
accounts = st.text(string.digits, min_size=12, max_size=12)
qualifiers = st.one_of(st.just("$LATEST"), st.text(NAME_CHARACTERS, min_size=1, max_size=128))
quickly = settings(max_examples=200, deadline=None, database=None)


def arn(target: Target, region: str = "eu-central-1", partition: str = "aws") -> str | None:
    return target.arn(region, lambda _: partition)


def refused(given: str, qualifier: str | None = None) -> errors.InvalidArgument:
    with pytest.raises(errors.InvalidArgument) as caught:
        resources.function(given, qualifier)
    assert caught.value.sqlstate == "22023"
    return caught.value


# What can be a function's name.

GOOD = [
    ("f", Target("f", "f", None, None, None, None)),
    ("lambda_Test-1", Target("lambda_Test-1", "lambda_Test-1", None, None, None, None)),
    ("f:live", Target("f:live", "f", None, None, None, None)),
    ("f:7", Target("f:7", "f", None, None, None, None)),
    ("f:$LATEST", Target("f:$LATEST", "f", None, None, None, None)),
    ("f:$LATEST.PUBLISHED", Target("f:$LATEST.PUBLISHED", "f", None, None, None, None)),
    (
        "123456789012:function:f",
        Target("123456789012:function:f", "f", None, "123456789012", None, None),
    ),
    (
        "123456789012:function:f:live",
        Target("123456789012:function:f:live", "f", None, "123456789012", None, None),
    ),
    (
        "arn:aws:lambda:eu-west-1:123456789012:function:f",
        Target("arn:aws:lambda:eu-west-1:123456789012:function:f", "f", None, "123456789012", "eu-west-1", "aws"),
    ),
    (
        "arn:aws-cn:lambda:cn-north-1:123456789012:function:f:$LATEST",
        Target(
            "arn:aws-cn:lambda:cn-north-1:123456789012:function:f:$LATEST",
            "f",
            None,
            "123456789012",
            "cn-north-1",
            "aws-cn",
        ),
    ),
    (
        "arn:aws-us-gov:lambda:us-gov-east-1:123456789012:function:f:7",
        Target(
            "arn:aws-us-gov:lambda:us-gov-east-1:123456789012:function:f:7",
            "f",
            None,
            "123456789012",
            "us-gov-east-1",
            "aws-us-gov",
        ),
    ),
]


@pytest.mark.parametrize(("given", "target"), GOOD, ids=[given for given, _ in GOOD])
def test_a_name_or_arn_is_taken_apart(given: str, target: Target) -> None:
    assert resources.function(given) == target


@quickly
@given(names, accounts, st.sampled_from(REGIONS), st.sampled_from(PARTITIONS), st.none() | qualifiers)
def test_the_parts_of_every_arn_are_found(
    name: str, account: str, region: str, partition: str, qualifier: str | None
) -> None:
    whole = f"{account}:function:{name}" + (f":{qualifier}" if qualifier else "")
    parsed = resources.function(f"arn:{partition}:lambda:{region}:{whole}")
    assert (parsed.name, parsed.account, parsed.region, parsed.partition) == (name, account, region, partition)
    partial = resources.function(whole)
    assert (partial.name, partial.account, partial.region, partial.partition) == (name, account, None, None)


@quickly
@given(st.text(max_size=80) | st.text(NAME_CHARACTERS + "$:./% \n'\"", max_size=80))
def test_whatever_is_taken_consists_of_harmless_characters(text: str) -> None:
    try:
        parsed = resources.function(text)
    except errors.InvalidArgument:
        return
    assert set(text) <= set(NAME_CHARACTERS + ".:$")
    assert 1 <= len(parsed.name) <= 64


BAD = [
    "",
    " ",
    ":",
    "f:",
    ":live",
    "f:live:7",
    "f:$latest",
    "f:$LATEST2",
    "f:a.b",
    "a" * 65,
    "a" * 200,
    "f:" + "a" * 129,
    "a/b",
    "../f",
    "f?Qualifier=1",
    "f#",
    "a%2Fb",
    "%",
    "a b",
    " f",
    "f ",
    "f\t",
    "f\n",
    "f\r\nX-Amz-Invocation-Type: Event",
    "f\0",
    "'f'",
    '"f"',
    "f;",
    "f\\",
    "fünktion",
    "𝔣",
    "f٣",
    "١٢٣٤٥٦٧٨٩٠١٢:function:f",
    "12345678901:function:f",
    "1234567890123:function:f",
    "arn:aws:lambda:eu-west-1:123456789012:function:",
    "arn:aws:lambda:eu-west-1:123456789012:function",
    "arn:aws:lambda:eu-west-1:123456789012:f",
    "arn:aws:lambda:eu-west-1:123456789012:layer:f",
    "arn:aws:lambda:eu-west-1:123456789012:event-source-mapping:f",
    "arn:aws:lambda:eu-west-1:123456789012:function:f:live:7",
    "arn:aws:lambda:eu-west-1:12345678901:function:f",
    "arn:aws:lambda:eu-west-1::function:f",
    "arn:aws:lambda:eu-west-1:function:f",
    "arn:aws:lambda::123456789012:function:f",
    "arn:aws:lambda:123456789012:function:f",
    "arn:aws:lambda:mars:123456789012:function:f",
    "arn:aws:lambda:eu-west-1/:123456789012:function:f",
    "arn:aws:lambda:function:f",
    "arn:aws:lambda",
    "arn:aws",
    "arn:aws:sns:eu-west-1:123456789012:f",
    "arn:aws:states:eu-west-1:123456789012:function:f",
    "arn:gcp:lambda:eu-west-1:123456789012:function:f",
    "arn::lambda:eu-west-1:123456789012:function:f",
    "ARN:aws:lambda:eu-west-1:123456789012:function:f",
    "https://lambda.eu-west-1.amazonaws.com",
]


@pytest.mark.parametrize("given", BAD, ids=ascii)
def test_what_is_no_function_is_refused_and_said_how_one_looks(given: str) -> None:
    error = refused(given)
    assert "Nothing was sent" in error.hint and "arn:aws:lambda:" in error.hint
    assert repr(given[:100])[:-1] in str(error)


def test_a_refused_name_does_not_flood_the_log() -> None:
    assert len(str(refused("a" * 1_000_000))) < 300


@pytest.mark.parametrize("name", ["a" * 64, "a" * 64 + ":" + "b" * 128])
def test_the_longest_names_are_taken(name: str) -> None:
    assert resources.function(name).name == "a" * 64


# Qualifiers.


@pytest.mark.parametrize("qualifier", ["live", "7", "$LATEST", "$LATEST.PUBLISHED", "a" * 128])
def test_a_qualifier_beside_the_name_is_kept_apart(qualifier: str) -> None:
    assert resources.function("f", qualifier).extra_qualifier == qualifier


@pytest.mark.parametrize("given", ["f:live", "123456789012:function:f:live"])
def test_a_qualifier_that_repeats_the_one_in_the_name_is_not_sent_twice(given: str) -> None:
    assert resources.function(given, "live").extra_qualifier is None


@pytest.mark.parametrize(
    ("given", "beside", "qualifier"),
    [
        ("f", None, None),
        ("f", "live", "live"),
        ("f:7", None, "7"),
        ("f:f", None, "f"),
        ("f:$LATEST", "$LATEST", "$LATEST"),
        ("arn:aws:lambda:eu-west-1:123456789012:function:f", None, None),
        ("123456789012:function:f:live", None, "live"),
    ],
)
def test_the_qualifier_is_known_wherever_it_stands(given: str, beside: str | None, qualifier: str | None) -> None:
    assert resources.function(given, beside).qualifier == qualifier


@pytest.mark.parametrize(
    "given", ["f:live", "arn:aws:lambda:eu-west-1:123456789012:function:f:live", "f:$LATEST", "f:Prod"]
)
def test_a_qualifier_that_contradicts_the_one_in_the_name_is_refused(given: str) -> None:
    error = refused(given, "prod")
    assert "'prod'" in str(error) and repr(given) in str(error)


@pytest.mark.parametrize("qualifier", ["", " ", "a b", "a/b", "$latest", "a.b", "a:b", "ä", "٣", "live\n", "a" * 129])
def test_a_bad_qualifier_is_refused(qualifier: str) -> None:
    assert "qualifier" in str(refused("f", qualifier))


def test_a_refused_qualifier_does_not_flood_the_log() -> None:
    assert len(str(refused("f", "a b" * 100_000))) < 300


# ARNs, completed.


def test_a_bare_name_has_no_arn() -> None:
    assert arn(resources.function("f:live")) is None


def test_a_full_arn_loses_its_qualifier_only() -> None:
    whole = "arn:aws-cn:lambda:cn-north-1:123456789012:function:f"
    assert arn(resources.function(whole + ":live"), "cn-north-1", "wrong") == whole


def test_a_partial_arn_gets_region_and_partition_of_the_call() -> None:
    assert (
        arn(resources.function("123456789012:function:f:7"), "cn-north-1", "aws-cn")
        == "arn:aws-cn:lambda:cn-north-1:123456789012:function:f"
    )


# What allowed_resources cover.

MINE = "arn:aws:lambda:eu-west-1:123456789012:function:report-a"


def permitted(given: str, *patterns: str) -> bool:
    target = resources.function(given)
    return resources.permits(patterns, target.resource, arn(target, "eu-west-1"))


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ("report-a", "function:report-a"),
        ("report-a", "function:report-*"),
        ("report-a", "function:*"),
        ("report-a", "function:*-*"),
        ("report-a", "function:*report-a*"),
        ("report-a", "*"),
        ("report-a:live", "function:report-a"),
        (MINE, MINE),
        (MINE + ":live", MINE),
        (MINE, "arn:aws:lambda:*:*:function:report-*"),
        (MINE, "arn:*"),
        ("123456789012:function:report-a", MINE),
        ("123456789012:function:report-a:live", "arn:*:lambda:eu-west-1:123456789012:function:report-*"),
    ],
)
def test_a_pattern_covers(given: str, pattern: str) -> None:
    assert permitted(given, pattern)


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ("report-b", "function:report-a"),
        ("report-ab", "function:report-a"),
        ("my-report-a", "function:report-a"),
        ("Report-a", "function:report-a"),
        ("report-a", "report-a"),
        ("report-a", "function:report-a:live"),
        ("report-a:live", "function:report-a:live"),
        ("report-a", "stream/report-a"),
        ("reportXa", "function:report.a"),
        ("reportt", "function:report+"),
        ("report-a", "function:report-a$"),
        ("report-a", MINE),
        ("report-a", "arn:*"),
        (MINE, "function:report-a"),
        (MINE, "*"),
        (MINE, "arn*"),
        (MINE, "*:function:report-a"),
        ("123456789012:function:report-a", "function:report-a"),
        ("123456789012:function:report-a", "*"),
        (MINE, MINE.replace("123456789012", "210987654321")),
        (MINE, MINE.replace("eu-west-1", "eu-west-2")),
        (MINE, MINE.replace("arn:aws:", "arn:aws-cn:")),
        (MINE, MINE + ":live"),
        ("report-a", ""),
    ],
)
def test_a_pattern_does_not_cover(given: str, pattern: str) -> None:
    assert not permitted(given, pattern)


def test_one_pattern_of_several_is_enough() -> None:
    assert permitted("b", "function:a", "function:b", MINE)


def test_no_patterns_cover_nothing() -> None:
    assert not permitted("f") and not permitted(MINE)


patterns = st.text("abfr:*/-.", max_size=20) | st.sampled_from(["*", "arn*", "*arn:aws*", "*:function:*", "function:*"])


@quickly
@given(patterns, names, accounts, st.sampled_from(REGIONS))
def test_a_name_pattern_never_covers_an_arn(pattern: str, name: str, account: str, region: str) -> None:
    assume(not pattern.startswith("arn:"))
    assert not permitted(f"arn:aws:lambda:{region}:{account}:function:{name}", pattern)
    assert not permitted(f"{account}:function:{name}", pattern)


@quickly
@given(patterns.map("arn:".__add__), names)
def test_an_arn_pattern_never_covers_a_name(pattern: str, name: str) -> None:
    assert not permitted(name, pattern)


@settings(quickly, max_examples=1000)
@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_a_star_stands_for_what_it_does_in_a_shell(pattern: str, text: str) -> None:
    assert resources.permits([pattern], text, None) == fnmatch.fnmatchcase(text, pattern)
    assert resources.permits(["arn:" + pattern], "", "arn:" + text) == fnmatch.fnmatchcase(text, pattern)


def test_matching_takes_no_time_however_many_stars_there_are() -> None:
    started = time.monotonic()
    assert not permitted("a" * 64, "*a" * 40 + "b")
    assert time.monotonic() - started < 1
