"""make example NAME=...: each example does on the local AWS what its README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = sorted({path.parent.name for path in (ROOT / "examples").glob("*/*.sql")})
SHOWN = {  # where it is the point that something fails
    "hello": 2,
}


@pytest.mark.parametrize("name", NAMES)
def test_an_example_prints_what_its_readme_shows(name: str) -> None:
    done = example(name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ERROR:") == SHOWN.get(name, 0), done.stdout
    readme = (ROOT / "examples" / name / "README.md").read_text()
    for block in re.findall(r"```text\n(.*?)```", readme, re.DOTALL):
        for line in timeless(block).splitlines():
            assert line in timeless(done.stdout), line


def test_a_name_that_is_none_is_said_in_words() -> None:
    done = example("weather")
    assert done.returncode == 2
    assert "there is no example 'weather'; there are address-change" in done.stderr


def example(name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples", name]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def timeless(text: str) -> str:
    """Without times, and without how wide psql makes a column."""
    return re.sub(r"[ -]+", " ", re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "(a time)", text))
