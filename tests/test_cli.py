"""The real command, as a process: output, exit codes, speed of thought."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.spec.test_load import GOOD


def hfray(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hfray.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_check(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(GOOD.replace("top_k", "topk"))
    done = hfray("check", "good.yaml", "bad.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == "ok  good.yaml  score text-classification\n"
    assert done.stderr.startswith("bad.yaml:6: task.topk: unknown key, did you mean top_k?")
    assert hfray("check", "good.yaml", cwd=tmp_path).returncode == 0


def test_a_bad_job_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(GOOD)
    for arguments, message in (
        (["run", "jub.yaml"], "jub.yaml: there is no such file; did you mean job.yaml?"),
        (["run", "job.yaml", "--set", "shard_rows=0"], "--set shard_rows: greater than or equal to 1, not 0"),
        (["run", "job.yaml", "--set", "input.where=a ==="], "where: at character 5"),
        (["explain", "wokers"], "nothing is called 'wokers'; did you mean workers"),
    ):
        done = hfray(*arguments, cwd=tmp_path)
        assert done.returncode == 2, (arguments, done)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not done.stdout.strip()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in hfray("run", "nothing.yaml", "--debug", cwd=tmp_path).stderr


def test_tasks_explain_and_version(tmp_path: Path) -> None:
    listed = json.loads(hfray("tasks", "--json", cwd=tmp_path).stdout)
    assert {task["name"] for task in listed} >= {"text-classification", "question-answering"}
    assert "zero-shot-image-classification" in hfray("tasks", cwd=tmp_path).stdout
    schema = json.loads(hfray("explain", "score", "--schema", cwd=tmp_path).stdout)
    assert "shard_rows" in schema["properties"]
    assert "max_batch_tokens" in hfray("explain", "engine", cwd=tmp_path).stdout
    assert hfray("--version", cwd=tmp_path).stdout.startswith("hfray 0.")
    assert "Usage" in hfray(cwd=tmp_path).stdout


def test_checking_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    code = (
        "import sys; sys.argv = ['hfray', 'check', 'good.yaml']\n"
        "from hfray.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'ray', 'torch', 'transformers', 'datasets', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
