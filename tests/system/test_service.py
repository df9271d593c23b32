"""The systemd unit: that what it starts exists and takes these arguments, and that systemd understands it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "awslambda-dispatch@.service"


def test_what_the_unit_starts_is_the_program() -> None:
    found = re.search(r"^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found
    done = subprocess.run([*shlex.split(found[1]), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--drain" in done.stdout


def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / UNIT.name.replace("@", "@app")
    unit.write_text(UNIT.read_text())
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert [line for line in (done.stdout + done.stderr).splitlines() if unit.name in line] == []
