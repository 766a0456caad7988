"""The two scripts around jobs/quickstart.yaml."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from hfray.errors import RowError
from hfray.spec.load import load_job

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
TEXTS = {
    "argparse": "Command-line parsing library: defines positional arguments and options.",
    "zlib.compress": "Returns a bytes object containing compressed data.",
    "sched.scheduler": "Runs events at a fixed time in the future.",
    "turtle.color": "Return or set the pencolor and fillcolor.",
    "email.message": "Basic message object for the email package.",
}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "jobs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def collect() -> ModuleType:
    return script("quickstart_corpus")


def test_docstrings_of_sources_are_found_without_importing_them(collect: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "__init__.py").write_text('"""Tools."""\nraise SystemExit("imported")\n')
    (tmp_path / "tools" / "saw.py").write_text(
        'class Saw:\n    """Cuts."""\n    async def cut(self):\n        """Cuts\n        wood."""\ndef dull(): ...\n'
    )
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_saw.py").write_text('"""A test."""\n')
    assert list(collect.source_docstrings(tmp_path)) == [
        ("tools", "Tools."),
        ("tools.saw.Saw", "Cuts."),
        ("tools.saw.Saw.cut", "Cuts\nwood."),
    ]


def test_compiled_modules_are_those_of_the_interpreter(collect: ModuleType) -> None:
    names = collect.compiled_modules()
    assert {"builtins", "itertools", "sys"} <= set(names)
    assert not [name for name in names if "test" in name or "xx" in name]


def test_docstrings_of_compiled_modules_have_the_names_of_the_language(collect: ModuleType) -> None:
    found = dict(collect.compiled_docstrings())
    assert found["str.split"].startswith("Return a list of the substrings")
    assert "accumulate" in found["itertools.accumulate"] or "accumulated" in found["itertools.accumulate"]
    assert "sys" in found


def test_the_corpus_is_about_ten_thousand_different_texts(tmp_path: Path) -> None:
    target = tmp_path / "new" / "corpus.jsonl"
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "quickstart_corpus.py"), str(target)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in target.read_text("utf-8").split("\n") if line]
    assert done.stdout.startswith(f"{len(rows):,} docstrings of Python")
    assert 7_000 < len(rows) < 15_000
    assert len({row["text"] for row in rows}) == len(rows)
    assert {"argparse", "zlib.compress", "threading.Timer"} <= {row["name"] for row in rows}
    assert all(set(row) == {"name", "text"} for row in rows)


def finished_job(folder: Path, ask: ModuleType) -> Path:
    """An output as `hfray run` leaves it, of a few texts and one failed row."""
    job = load_job(ROOT / "jobs" / "quickstart.yaml")
    if importlib.util.find_spec(job.model.path.removeprefix("package:").partition("/")[0]) is None:
        pytest.skip("the extra `quickstart` is not installed")
    output = folder / "out"
    (output / "data").mkdir(parents=True)
    (output / "spec.yaml").write_text((ROOT / "jobs" / "quickstart.yaml").read_text("utf-8"), "utf-8")
    vectors = ask.embed(output / "spec.yaml", list(TEXTS.values())).tolist()
    table = pa.table(
        {
            "name": [*TEXTS, "failed"],
            "text": [*TEXTS.values(), None],
            "result": pa.array([*vectors, None], pa.list_(pa.float32())),
            "error": [None] * len(TEXTS) + [{"type": "NullText", "message": "text is null"}],
        }
    )
    pq.write_table(table, output / "data" / "part-00000000.parquet")
    (output / "_SUCCESS").touch()
    return output


def test_questions_find_the_texts_that_answer_them(tmp_path: Path) -> None:
    ask = script("quickstart_ask")
    output = finished_job(tmp_path, ask)
    shown = io.StringIO()
    ask.answer(output, ask.QUESTIONS, Console(file=shown, width=120))
    lines = [line.split() for line in shown.getvalue().splitlines()]
    answers = [after[1] for line, after in pairwise(lines) if " ".join(line) in ask.QUESTIONS]
    assert answers == ["argparse", "sched.scheduler", "zlib.compress"]
    with pytest.raises(RowError, match="null"):
        ask.embed(output / "spec.yaml", ["good", None])


def test_without_a_finished_job_it_says_what_to_run(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "jobs" / "quickstart_ask.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "run `hfray run jobs/quickstart.yaml` first" in done.stderr
