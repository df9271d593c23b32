"""Every unit test begins without credentials, configuration or instance metadata, whatever this machine has."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from awslambda import aws, signing
from awslambda.connection import Connections
from botocore.loaders import JSONFileLoader

ACCESS_KEY, SECRET_KEY, TOKEN = "AKIDEXAMPLE", "the-secret-key", "the-session-token"


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BOTO_CONFIG", str(tmp_path / "boto"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWSLAMBDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(aws, "_identities", {})
    monkeypatch.setattr(signing, "clock", signing.Clock())


@pytest.fixture(scope="session", autouse=True)
def botocore_reads_its_data_once() -> Iterator[None]:
    """Each test has new sessions; reading the same megabytes of JSON for each would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", staticmethod(functools.cache(JSONFileLoader().load_file)))
        yield


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)


@pytest.fixture
def connections() -> Iterator[Connections]:
    """As a session has them; closed with the test."""
    with contextlib.closing(Connections()) as kept:
        yield kept
