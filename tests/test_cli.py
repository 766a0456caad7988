"""The real command, as a process: output, exit codes, speed of thought."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hfray.tasks import TASKS
from tests.spec.jobs import GOOD

pytestmark = pytest.mark.slow  # each test starts processes

HFRAY = Path(sys.executable).with_name("hfray")


def hfray(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HFRAY, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(GOOD.replace("top_k", "topk").replace("max: 2", "max: x"))
    return tmp_path


def test_check_tells_each_file_apart(folder: Path) -> None:
    done = hfray("check", "good.yaml", "bad.yaml", "god.yaml", cwd=folder)
    assert done.returncode == 2
    assert done.stdout == "ok  good.yaml  score text-classification\n"
    assert done.stderr.splitlines() == [
        "bad.yaml:6: task.topk: unknown key, did you mean top_k?",
        "bad.yaml:11: workers.max: must be a whole number, not 'x'",
        "god.yaml: there is no such file, did you mean good.yaml?",
    ]


def test_check_of_a_good_file_is_0(folder: Path) -> None:
    done = hfray("check", "bad.yaml", "--set", "workers.max=1", "--set", "task={name: fill-mask}", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok  bad.yaml  score fill-mask\n", "")


def test_check_reads_conditions(folder: Path) -> None:
    (folder / "where.yaml").write_text(GOOD.replace("path: data.csv", "path: data.csv\n  where: a === 1"))
    done = hfray("check", "where.yaml", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("where.yaml:9: input.where: at character 5")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "goood.yaml"], "goood.yaml: there is no such file, did you mean good.yaml?"),
        (["run", "good.yaml", "--set", "shard_rows=0"], "--set shard_rows: must be at least 1, not 0"),
        (["explain", "wokers"], "nothing is called wokers, did you mean workers?"),
        (["explain", "scroe", "--schema"], "unknown kind 'scroe', did you mean score?"),
        (["explain", "[red]x[/red]"], "nothing is called [red]x[/red]; `hfray explain score` shows every field"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(folder: Path, arguments: list[str], message: str) -> None:
    done = hfray(*arguments, cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_wrong_arguments_are_explained(folder: Path) -> None:
    unknown = hfray("chek", cwd=folder)
    assert unknown.returncode == 2
    assert "Did you mean" in unknown.stderr
    assert "'check'" in unknown.stderr
    assert hfray("run", cwd=folder).returncode == 2


def test_debug_shows_the_traceback_and_keeps_the_exit_code(folder: Path) -> None:
    done = hfray("run", "nothing.yaml", "--debug", cwd=folder)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "SpecError: nothing.yaml: there is no such file" in done.stderr


def test_long_messages_are_not_wrapped(folder: Path) -> None:
    done = hfray("check", "x" * 200, cwd=folder)
    assert done.stderr == f"{'x' * 200}: there is no such file\n"


def test_tasks(folder: Path) -> None:
    listed = json.loads(hfray("tasks", "--json", cwd=folder).stdout)
    assert [task["name"] for task in listed] == list(TASKS)
    assert all(task["summary"] and task["columns"] and task["model"] for task in listed)
    lines = hfray("tasks", cwd=folder).stdout.splitlines()
    assert [line.split()[0] for line in lines[1 : len(TASKS) + 1]] == list(TASKS)
    assert not any(line != line.rstrip() for line in lines)


def test_explain(folder: Path) -> None:
    everything = hfray("explain", "score", cwd=folder).stdout
    assert "\nengine.max_batch_tokens ○  integer >= 1 | auto" in everything
    assert "required" in everything
    kinds = [line.split()[:2] for line in hfray("explain", cwd=folder).stdout.splitlines()[1:3]]
    assert kinds == [["score", "kind"], ["tokenize", "kind"]]
    seeds = hfray("explain", "seed", cwd=folder).stdout
    assert "score: Of sampled text" in seeds
    assert "tokenize: Of `input.sample`" in seeds
    assert "shard_rows" in json.loads(hfray("explain", "--schema", cwd=folder).stdout)["properties"]


def test_help_and_version(folder: Path) -> None:
    assert hfray("--version", cwd=folder).stdout.startswith("hfray 0.")
    assert "Usage" in hfray(cwd=folder).stdout
    shown = hfray("run", "--help", cwd=folder).stdout
    for option in ("--set", "--restart", "--retry-errors", "--debug", "--quiet"):
        assert option in shown


def test_colours_only_on_a_terminal(folder: Path) -> None:
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"} | {"NO_COLOR": ""}
    with subprocess.Popen([HFRAY, "check", "good.yaml"], cwd=folder, stdout=follower, env=environment) as process:
        process.wait(60)
    os.close(follower)
    assert b"\x1b[32mok" in os.read(leader, 4096)
    os.close(leader)
    assert "\x1b" not in hfray("explain", "score", cwd=folder).stdout


def test_a_reader_that_goes_away_is_no_traceback(folder: Path) -> None:
    done = subprocess.run(
        f"'{HFRAY}' explain score --schema | head -1",
        cwd=folder,
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "{\n"
    assert done.stderr == ""


def test_any_other_broken_pipe_is_told(folder: Path) -> None:
    """One that hfray wrote to, which Typer by itself takes for the reader of the output."""
    code = (
        "import os, sys, hfray.cli\n"
        "@hfray.cli.app.command()\n"
        "def speak():\n"
        "    reader, writer = os.pipe()\n"
        "    os.close(reader)\n"
        "    os.write(writer, b'x')\n"
        "sys.argv = ['hfray', 'speak']\n"
        "hfray.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert "Broken pipe" in done.stderr
    assert "Traceback" not in done.stderr


def test_interrupted_is_130(folder: Path) -> None:
    os.mkfifo(folder / "never.yaml")
    with (
        subprocess.Popen([HFRAY, "check", "never.yaml"], cwd=folder, stderr=subprocess.PIPE) as process,
        open(folder / "never.yaml", "w"),  # returns once the command has opened its end, and reads
    ):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == b""


def test_check_is_light(folder: Path) -> None:
    code = (
        "import sys; sys.argv = ['hfray', 'check', 'good.yaml']\n"
        "from hfray.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'ray', 'torch', 'transformers', 'datasets', 'peft', 'pyarrow', 'obstore', 'pandas', 'fsspec'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_check_answers_in_under_a_second(folder: Path) -> None:
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        hfray("check", "good.yaml", cwd=folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    # Processor time, because others share the cores (which makes even that half as long again); alone it is the wall
    # time, about 0.7 s.
    assert min(spent) < 1.5, spent
