"""What loading the package costs each new backend."""

from __future__ import annotations

import subprocess
import sys


def test_nothing_is_imported_before_it_is_needed() -> None:
    needless = {
        "boto3", "botocore", "dataclasses", "email", "http", "inspect", "logging", "pathlib", "psycopg", "random",
        "ssl", "subprocess", "urllib3",
    }  # fmt: skip
    program = "import sys, awslambda.plpython; print(*sys.modules)"
    command = [sys.executable, "-Sc", f"import sys; sys.path = {sys.path!r}; {program}"]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "awslambda.connection" in loaded
    assert needless.isdisjoint(loaded)
