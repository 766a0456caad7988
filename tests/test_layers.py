"""The layers of the house hold: imports go downwards only, and the light ones stay light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, input=text)


def test_modules_import_only_from_below() -> None:
    done = run("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache")
    assert done.returncode == 0, done.stdout
    assert "1 kept, 0 broken" in done.stdout


def test_heavy_libraries_are_imported_late() -> None:
    done = run("-m", "ruff", "check", "--no-cache", "--select", "TID253", "hfray")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("library", ["ray", "torch", "transformers", "datasets", "peft", "obstore"])
@pytest.mark.parametrize(
    ("module", "may"),
    [
        ("spec/new.py", False),
        ("tasks/new.py", False),
        ("cli.py", False),
        ("kinds/new.py", False),
        ("training/new.py", False),
        ("engines/new.py", True),
    ],
)
def test_the_rule_would_notice(module: str, may: bool, library: str) -> None:
    arguments = ("--no-cache", "--select", "TID253", "--stdin-filename", f"hfray/{module}", "-")
    assert (run("-m", "ruff", "check", *arguments, text=f"import {library}\n").returncode == 0) is may
