"""A job file to a spec; every mistake as one line that names file, line, key and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hfray.errors import SpecError
from hfray.spec.load import load_job

GOOD = """\
kind: score
name: intents
model: {path: some/model}
task:
  name: text-classification
  top_k: 3
input:
  path: data.csv
output: {path: out/intents}
engine: {name: batch, max_batch_tokens: 4096}
workers: {min: 1, max: 2}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def write_job(text: str) -> str:
        Path("job.yaml").write_text(text)
        return "job.yaml"

    return write_job


def problems(path: str, *overrides: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_job(path, overrides)
    return str(caught.value).splitlines()


def test_a_good_file(write: Any) -> None:
    job = load_job(write(GOOD))
    assert job.task.name == "text-classification"
    assert job.input.path == ("data.csv",)
    assert job.engine.max_batch_tokens == 4096
    assert job.shard_rows == 4096
    assert job.max_error_rate == 0.01
    with pytest.raises(ValueError, match="frozen"):
        job.shard_rows = 5  # type: ignore[misc]


def test_the_saved_spec_loads_again(write: Any) -> None:
    job = load_job(write(GOOD))
    Path("spec.yaml").write_text(yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False))
    assert load_job("spec.yaml") == job


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("max_batch_tokens", "max_batch_token",
         "job.yaml:10: engine.max_batch_token: unknown key, did you mean max_batch_tokens?; "
         "known: name, max_batch_tokens, max_batch_items"),
        ("  top_k: 3", "  topk: 3", "job.yaml:6: task.topk: unknown key, did you mean top_k?"),
        ("kind: score", "kind: scor", "job.yaml:1: kind: unknown kind 'scor', did you mean score?; known: score"),
        ("kind: score\n", "", "job.yaml:1: kind: missing; one of score"),
        ("text-classification", "text-clasification",
         "job.yaml:5: task.name: unknown name 'text-clasification', did you mean text-classification?"),
        ("name: batch", "name: bath", "job.yaml:10: engine.name: unknown name 'bath', did you mean batch?"),
        ("name: intents", "name: Intents!", "job.yaml:2: name: 'Intents!' must match ^[a-z0-9]"),
        ("max: 2", "max: many", "job.yaml:11: workers.max: must be integer, not 'many'"),
        ("min: 1", "min: 3", "job.yaml:1: workers.min 3 is above workers.max 2"),
        ("max_batch_tokens: 4096", "max_batch_tokens: 0", "job.yaml:10: engine.max_batch_tokens: "),
        ("model: {path: some/model}", "model: some/model",
         "job.yaml:3: model: a section with keys of its own, not 'some/model'"),
        ("model: {path: some/model}", "model: {path: m, dtype: bf16}",
         "job.yaml:3: model.dtype: 'bf16' is not one of auto, float32, bfloat16, float16, did you mean bfloat16?"),
        ("output: {path: out/intents}\n", "", "job.yaml:1: output: missing"),
        ("  path: data.csv", "  path: data.csv\n  columns: {result: x}",
         "job.yaml:1: input.columns makes a column 'result', which the output needs for itself"),
    ],
)  # fmt: skip
def test_one_mistake_one_line(write: Any, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    lines = problems(write(GOOD.replace(old, new)))
    assert len(lines) in (1, 2 if "max_batch_tokens: 0" in new else 1)
    assert lines[0].startswith(expected), lines


def test_several_mistakes_are_told_at_once(write: Any) -> None:
    lines = problems(
        write(GOOD.replace("top_k: 3", "topk: 3").replace("max: 2", "max: x").replace("intents\n", "I\n", 1))
    )
    assert [line.split(":")[1] for line in lines] == ["2", "6", "11"]


def test_overrides_come_before_validation_and_are_cited(write: Any) -> None:
    path = write(GOOD)
    job = load_job(path, ["workers.max=7", "input.path=[a.csv, b.csv]", "model.revision=no", "task.threshold=1e-1"])
    assert job.workers.max == 7
    assert job.input.path == ("a.csv", "b.csv")
    assert job.model.revision == "no"
    assert job.task.threshold == 0.1  # type: ignore[attr-defined]
    assert load_job(path, ["input.path=[a, b]", "input.path.1=c"]).input.path == ("a", "c")
    assert problems(path, "workers.max=x") == ["--set workers.max: must be integer, not 'x'"]
    assert problems(path, "wrkers.max=1")[0].startswith("--set wrkers: unknown key, did you mean workers?")
    assert problems(path, "shard_rows")[0].startswith("--set shard_rows: write it as key=value")
    assert problems(path, "name.x.y=1")[0].startswith("--set name")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "job.yaml: the file is empty"), ("- a\n", "job.yaml:1: a job is a mapping of keys, not a list"),
     ("kind: [", "job.yaml:"), ("\xff", "job.yaml")],
)  # fmt: skip
def test_files_that_are_no_job(write: Any, text: str, expected: str) -> None:
    assert problems(write(text))[0].startswith(expected)


def test_files_that_are_not_there(write: Any, tmp_path: Path) -> None:
    write(GOOD)
    assert problems("jb.yaml") == ["jb.yaml: there is no such file; did you mean job.yaml?"]
    assert problems(str(tmp_path)) == [f"{tmp_path}: a folder, not a job file"]
    Path("latin.yaml").write_bytes(b"name: \xe9")
    assert "UTF-8" in problems("latin.yaml")[0]


def test_metrics_need_a_task_that_has_some(write: Any) -> None:
    path = write(GOOD + "metrics: {label: y}\n")
    assert load_job(path).metrics is not None
    other = GOOD.replace("text-classification\n  top_k: 3", "feature-extraction")
    assert "feature-extraction has no metrics" in problems(write(other + "metrics: {label: y}\n"))[0]
