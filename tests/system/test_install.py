"""make install and uninstall, and the program awslambda."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

ROOT = Path(__file__).parents[2]


def make(*arguments: str) -> str:
    done = subprocess.run(["make", "--silent", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def pg_config(cluster: Cluster) -> str:
    return f"PG_CONFIG={cluster.bindir / 'pg_config'}"


def test_destdir_is_honoured_and_uninstall_removes_its_own_version_only(tmp_path: Path, pg_config: str) -> None:
    make("install", pg_config, f"DESTDIR={tmp_path}")
    installed = files(tmp_path)
    version = (ROOT / "build" / "libdir").read_text().strip().rsplit("/", 1)[-1]
    assert f"usr/local/lib/awslambda/{version}/awslambda/plpython.py" in installed
    assert "usr/local/bin/awslambda" in installed
    for extension in ("awslambda", "aws_commons", "aws_lambda"):
        assert any(name.endswith(f"extension/{extension}--{version}.sql") for name in installed)
        assert any(name.endswith(f"extension/{extension}.control") for name in installed)
    control = next(name for name in installed if name.endswith("awslambda.control"))
    other = tmp_path / Path(control).parent / "awslambda--99.0.sql"
    other.write_text("")
    (tmp_path / "usr/local/lib/awslambda/99.0").mkdir()
    make("uninstall", pg_config, f"DESTDIR={tmp_path}")
    assert files(tmp_path) == {control, str(other.relative_to(tmp_path))}
    assert (tmp_path / "usr/local/lib/awslambda/99.0").exists()
    other.unlink()
    make("install", pg_config, f"DESTDIR={tmp_path}")
    another_major = tmp_path / "usr/share/postgresql/99/extension" / f"awslambda--{version}.sql"
    another_major.parent.mkdir(parents=True)
    another_major.write_text("")
    make("uninstall", pg_config, f"DESTDIR={tmp_path}")
    assert (tmp_path / f"usr/local/lib/awslambda/{version}/awslambda/plpython.py").exists(), "another major needs it"
    another_major.unlink()
    make("uninstall", pg_config, f"DESTDIR={tmp_path}")
    assert files(tmp_path) == set()
    make("uninstall", pg_config, f"DESTDIR={tmp_path / 'nothing here'}")


def test_what_is_installed_is_readable_compiled_and_pruned(tmp_path: Path, pg_config: str) -> None:
    previous = os.umask(0o077)
    try:
        make("install", pg_config, f"DESTDIR={tmp_path}")
    finally:
        os.umask(previous)
    library = next((tmp_path / "usr/local/lib/awslambda").iterdir())
    for path in library.rglob("*"):
        assert path.stat().st_mode & 0o004, path
        assert path.is_file() or path.stat().st_mode & 0o001, path
    compiled = next(library.glob("awslambda/__pycache__/plpython*.pyc")).read_bytes()
    assert str(tmp_path).encode() not in compiled
    services = {path.name for path in (library / "botocore/data").iterdir() if path.is_dir()}
    assert services == {"kinesis", "lambda", "sqs", "sns", "sts", "sso", "sso-oidc"}
    assert sum(path.stat().st_size for path in library.rglob("*") if path.is_file()) < 20_000_000


def test_the_path_of_another_prefix_is_baked_into_the_sql(tmp_path: Path, pg_config: str) -> None:
    try:
        make("install", pg_config, f"DESTDIR={tmp_path}", "PREFIX=/opt/aws")
        script = next(tmp_path.rglob("awslambda--*.sql")).read_text()
        assert '"/opt/aws/lib/awslambda/' in script and "/usr/local" not in script
        assert "/opt/aws/lib/awslambda/" in (tmp_path / "opt/aws/bin/awslambda").read_text()
    finally:
        make("all", "build/awslambda", pg_config)


def test_versions_agree() -> None:
    controls = {path.stem: path.read_text() for path in (ROOT / "extension").glob("*.control")}
    control = re.search(r"default_version = '(.*)'", controls["awslambda"])
    package = re.search(r'__version__ = "(.*)"', (ROOT / "python/src/awslambda/__init__.py").read_text())
    assert control and package
    assert control[1] == package[1]
    assert all(f"default_version = '{control[1]}'\n" in text for text in controls.values())
    meta = json.loads((ROOT / "extension/META.json").read_text())
    provided = {name: (one["version"], one["file"]) for name, one in meta["provides"].items()}
    assert provided == {name: (control[1], f"build/{name}--{control[1]}.sql") for name in controls}
    assert meta["version"] == control[1]
    assert f"## {control[1]}" in (ROOT / "CHANGELOG.md").read_text()


def doctor(environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    arguments = [argument for option in options for argument in ("-o", option)]
    return subprocess.run(
        ["/usr/local/bin/awslambda", "doctor", *arguments],
        env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_doctor_makes_the_checks_of_diagnostics_from_the_shell(aws: LocalAWS, shared: Any) -> None:
    done = doctor(aws.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = shared('SELECT array_agg("check") FROM awslambda.diagnostics()')
    assert [line.split()[1] for line in done.stdout.splitlines() if not line.startswith(" ")] == checks
    assert "iam-role, expire at" in done.stdout and "Traceback" not in done.stderr


def test_doctor_fails_when_a_check_fails_and_refuses_what_a_server_would(aws: LocalAWS) -> None:
    failed = doctor(aws.environment, "endpoint_url_lambda=http://127.0.0.1:1")
    assert failed.returncode == 1 and "Connection refused" in failed.stdout
    refused = doctor(aws.environment, "endpoint=x")
    assert refused.returncode == 2 and "invalid option 'endpoint'" in refused.stderr and "region" in refused.stderr
