"""make demo, as far as it is ours: what it prints, and that it leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def left_behind() -> set[str]:
    return {path.name for path in Path("/tmp").glob("awslambda-*")}


def test_the_demo_shows_what_the_readme_says_and_leaves_nothing_behind() -> None:
    before = left_behind()
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    shown = done.stdout
    assert done.returncode == 0, shown + done.stderr
    assert '{"name": "bob", "Status": "OK"}' in shown
    assert "ERROR:  awslambda.FunctionError: The Lambda function 'lambdaFail' raised ValueError: no sensor 7" in shown
    assert "SQLSTATE LA001" in shown
    assert "canceling statement due to statement timeout" in shown
    assert [float(value) for value in re.findall(r"UTC +([\d.]+)  #", shown)] == [65, 65, 63, 67, 74, 82, 85, 86]
    assert "make playground" in shown
    assert left_behind() == before


def test_the_playground_opens_psql_and_ends_with_it() -> None:
    before = left_behind()
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--playground"], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=120, input="SELECT awslambda_fn('lambdaTest', '{\"name\":\"eve\"}');\n",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '{"name": "eve", "Status": "OK"}' in done.stdout
    assert left_behind() == before
