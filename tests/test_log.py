"""The console stays clean: descriptors, child processes, logging and warnings go to the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import logging, os, subprocess, sys, warnings
from pathlib import Path
from hfray.log import quiet
with quiet(Path("log.txt"), debug={debug}) as console:
    print("from print")
    os.write(2, b"from a descriptor\\n")
    subprocess.run(["echo", "from a child"])
    logging.getLogger("x").warning("from logging")
    warnings.warn("from warnings")
    console.print("for the person")
    {more}
print("after")
"""


def run(folder: Path, debug: bool = False, more: str = "pass") -> subprocess.CompletedProcess[str]:
    code = CODE.format(debug=debug, more=more)
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_chatter_goes_to_the_file(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.stdout == "for the person\nafter\n"
    assert done.stderr == ""
    log = (tmp_path / "log.txt").read_text()
    for source in ("print", "a descriptor", "a child", "logging", "warnings"):
        assert f"from {source}" in log
    assert (tmp_path / "log.txt").stat().st_mode & 0o777 == 0o600


def test_an_exception_turns_everything_back(tmp_path: Path) -> None:
    done = run(tmp_path, more="raise ValueError('seen')")
    assert done.stdout == "for the person\n"
    assert "ValueError: seen" in done.stderr


def test_debug_leaves_everything_alone(tmp_path: Path) -> None:
    done = run(tmp_path, debug=True)
    assert "from print" in done.stdout
    assert "from a descriptor" in done.stderr
    assert not (tmp_path / "log.txt").exists()
