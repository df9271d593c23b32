"""The set-up of make demo and make test, where it can do nothing: it says what is missing, by name."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ["sh", "sed", "id", "dirname", "head", "cat", "cmp", "find", "mkdir"]


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment without apt-get, sudo, PostgreSQL and pip."""
    for tool in TOOLS:
        (tmp_path / tool).symlink_to(
            subprocess.run(["which", tool], capture_output=True, text=True, check=True).stdout[:-1]
        )
    return {"PATH": str(tmp_path), "PG_CONFIG": "/nowhere/pg_config", "PYTHON": "/nowhere/python3", "MAKE": "make"}


def test_on_another_system_it_names_what_is_missing(bare: dict[str, str]) -> None:
    done = subprocess.run(
        ["/bin/sh", ROOT / "tests" / "setup.sh"], env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    for package in (
        "postgresql-NN",
        "postgresql-plpython3-NN",
        "python3-pip",
        "python3-venv",
        "Debian and Ubuntu only",
    ):
        assert package in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody else")
def test_without_root_and_sudo_it_says_what_to_ask_for(bare: dict[str, str], readable_folder: Path) -> None:
    apt = Path(bare["PATH"]) / "apt-get"
    apt.write_text("#!/bin/sh\nexit 1\n")
    apt.chmod(0o755)
    for folder in (Path(bare["PATH"]), *Path(bare["PATH"]).parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    copy = readable_folder / "checkout"
    (copy / "tests").mkdir(parents=True)
    (copy / "tests" / "setup.sh").write_text((ROOT / "tests" / "setup.sh").read_text())
    done = subprocess.run(
        ["/bin/sh", copy / "tests" / "setup.sh"], env=bare, capture_output=True, text=True, check=False, user="nobody"
    )
    assert done.returncode == 1
    assert "Run this as root, install sudo, or ask for: apt-get install postgresql-NN" in done.stderr
