"""keys add, list and revoke as processes: output, exit codes, what lies in the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hfray.serving.keys import KeyRing

pytestmark = pytest.mark.slow  # each test starts processes


def keys(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """By module, so that the package at hand is the one that is tested."""
    command = [sys.executable, "-m", "hfray.cli", "keys", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_a_key_from_first_to_last(tmp_path: Path) -> None:
    limits = ("--models", "a, b", "--requests-per-minute", "60")
    done = keys("add", "--file", "keys.yaml", "--id", "alice", *limits, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = done.stdout.removesuffix("\n")
    assert len(text.split()) == 1  # alone, for a pipe
    assert text not in done.stderr
    path = tmp_path / "keys.yaml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert text not in path.read_text()
    found = KeyRing.load(path).find(f"Bearer {text}")
    assert found is not None
    assert (found.id, found.models, found.requests_per_minute, found.tokens_per_day) == ("alice", ("a", "b"), 60, None)

    again = keys("add", "--file", "keys.yaml", "--id", "alice", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert "keys.yaml has it already" in again.stderr
    assert keys("add", "--file", "keys.yaml", "--id", "bob", cwd=tmp_path).returncode == 0

    wrong = keys("revoke", "--file", "keys.yaml", "--id", "alise", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "did you mean alice?" in wrong.stderr
    assert keys("revoke", "--file", "keys.yaml", "--id", "alice", cwd=tmp_path).stdout == "revoked  alice\n"
    assert KeyRing.load(path).find(f"Bearer {text}") is None

    listed = keys("list", "--file", "keys.yaml", cwd=tmp_path).stdout
    assert [line.split()[-1] for line in listed.splitlines()[:3]] == ["state", "revoked", "active"]
    as_json = keys("list", "--file", "keys.yaml", "--json", cwd=tmp_path).stdout
    assert [(each["id"], each["disabled"]) for each in json.loads(as_json)] == [("alice", True), ("bob", False)]
    assert found.sha256 not in listed + as_json


def test_two_adds_at_a_time_lose_nothing(tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "hfray.cli", "keys", "add", "--file", "keys.yaml", "--id", f"k{number}"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for number in range(4)
    ]
    texts = [process.communicate(timeout=60)[0].strip() for process in started]
    ring = KeyRing.load(tmp_path / "keys.yaml")
    assert all(ring.find(f"Bearer {text}") for text in texts)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--id", "a b"), "--id: must be a name"),
        (("--id", "hfray-" + "x" * 43), "--id: must be a name"),
        (("--id", "a", "--tokens-per-day", "0"), "--tokens-per-day: "),
        (("--id", "a", "--models", ","), "--models: names no model"),
        (("--id", "a", "--file", "none/keys.yaml"), "none/keys.yaml: cannot be written"),
    ],
)
def test_mistakes_make_no_file(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = keys("add", "--file", "keys.yaml", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "x" * 43 not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_broken_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("- id: [")
    path.chmod(0o600)
    for command in ("add", "revoke"):
        assert keys(command, "--file", "keys.yaml", "--id", "a", cwd=tmp_path).returncode == 2
    assert path.read_text() == "- id: ["
