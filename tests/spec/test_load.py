"""A job file to a spec: overrides, citations, and files that are no job."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hfray.errors import SpecError
from hfray.spec.load import cite, load_job
from hfray.spec.yaml_lines import dump
from tests.spec.jobs import GOOD

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write_job(text: str) -> str:
        Path("job.yaml").write_text(text)
        return "job.yaml"

    return write_job


def problems(path: str, *overrides: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_job(path, overrides)
    return str(caught.value).splitlines()


def test_a_good_file(write: Write) -> None:
    job = load_job(write(GOOD))
    assert job.task.name == "text-classification"
    assert job.input.path == ("data.csv",)
    assert job.engine.name == "batch"
    assert job.engine.max_batch_tokens == 4096
    assert job.shard_rows == 4096
    assert job.max_error_rate == 0.01
    with pytest.raises(ValueError, match="frozen"):
        job.shard_rows = 5  # type: ignore[misc]


def test_an_engine_without_a_name_is_batch(write: Write) -> None:
    job = load_job(write(GOOD.replace("name: batch, ", "")))
    assert (job.engine.name, job.engine.max_batch_tokens) == ("batch", 4096)  # type: ignore[union-attr]


def test_the_saved_spec_loads_again(write: Write) -> None:
    job = load_job(write(GOOD), ["model.revision='1e3'", "input.where=a == 'no'", "input.columns={text: 'on'}"])
    Path("spec.yaml").write_text(dump(job.model_dump(mode="json")))
    assert load_job("spec.yaml") == job


def test_overrides_come_before_validation(write: Write) -> None:
    path = write(GOOD)
    job = load_job(path, ["workers.max=7", "input.path=[a.csv, b.csv]", "model.revision=no", "task.threshold=1e-1"])
    assert job.workers.max == 7
    assert job.input.path == ("a.csv", "b.csv")
    assert job.model.revision == "no"
    assert job.task.threshold == 0.1  # type: ignore[attr-defined]
    assert load_job(path, ["input.path=[a, b]", "input.path.1=c", "input.path.2=d"]).input.path == ("a", "c", "d")
    assert load_job(path, ["input.path.0=b"]).input.path == ("b",)
    assert load_job(path, ["metrics.label=y", "metrics="]).metrics is None
    assert load_job(path, ["input.columns.2=x"]).input.columns == {"2": "x"}
    assert load_job(path, ["input.where=[a"]).input.where == "[a"
    assert load_job(path, ["input.where=a == 1"]).input.where == "a == 1"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("workers.max=x", "--set workers.max: must be a whole number, not 'x'"),
        ("wrkers.max=1", "--set wrkers: unknown key, did you mean workers?"),
        ("workers.min=5", "--set workers.min: 5 is above workers.max, 2"),
        ("workers.max=0", "--set workers.max: must be at least 1, not 0"),
        ("model=x", "--set model: must be a section of keys such as {path: x}, not 'x'"),
        ("model.path=", "--set model.path: must be text, not null"),
        ("name.x.y=1", "--set name: must be text, not a mapping of keys"),
        ("input.path.0.x=1", "--set input.path.0: must be text, not a mapping of keys"),
        ("kind=serve", "--set kind: unknown kind 'serve'; known: score, tokenize, train, export"),
        ("task={top_k: 3}", "--set task.name: missing; `hfray explain task.name` says what goes there"),
        ("shard_rows", "--set shard_rows: write it as key=value, such as --set workers.max=4"),
        ("=1", "--set =1: write it as key=value, such as --set workers.max=4"),
        ("a..b=1", "--set a..b=1: write it as key=value, such as --set workers.max=4"),
    ],
)
def test_overrides_are_cited(write: Write, override: str, expected: str) -> None:
    assert problems(write(GOOD), override) == [expected]


def test_only_what_an_override_wrote_is_blamed_on_it(write: Write) -> None:
    path = write(GOOD.replace("name: batch", "name: bath"))
    assert problems(path, "engine.max_batch_tokens=1")[0].startswith("job.yaml:10: engine.name: unknown name 'bath'")
    assert problems(path, "engine.name=batch", "metrics.lable=x") == [
        "--set metrics.lable: unknown key, did you mean label?",
    ]
    assert problems(write(GOOD), "input.path=[a, b]", "input.path.x=c") == [
        "--set input.path.x=c: input.path is a list of 2 (its first entry is 0), without a 'x'"
    ]


def test_a_key_can_be_cited_later(write: Write) -> None:
    path = write(GOOD)
    assert cite(path, "input.path") == "job.yaml:8: input.path"
    assert cite(path, "input.where", ["input.where=a"]) == "--set input.where"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "job.yaml: the file is empty; `hfray explain score` shows what a job needs"),
        ("# only this\n", "job.yaml: the file is empty; `hfray explain score` shows what a job needs"),
        ("- a\n", "job.yaml:1: must be a mapping of keys, such as `kind: score`, not a list"),
        ("just text\n", "job.yaml:1: must be a mapping of keys, such as `kind: score`, not 'just text'"),
        ("kind: [\n", "job.yaml:2: not YAML: expected the node content, but found '<stream end>'"),
        ("kind: score\nkind: score\n", "job.yaml:2: kind: given twice, first on line 1"),
        ("a: " + "x" * 2**20, "job.yaml: not a job file: larger than 1 MiB"),
    ],
)
def test_files_that_are_no_job(write: Write, text: str, expected: str) -> None:
    assert problems(write(text)) == [expected]


def test_files_that_are_not_there(write: Write, tmp_path: Path) -> None:
    write(GOOD)
    assert problems("jb.yaml") == ["jb.yaml: there is no such file, did you mean job.yaml?"]
    assert problems("zzzzzz") == ["zzzzzz: there is no such file"]
    assert problems("nowhere/job.yaml") == ["nowhere/job.yaml: there is no such file; there is no folder nowhere"]
    assert problems(str(tmp_path)) == [f"{tmp_path}: a folder, not a job file"]
    assert problems("a\0b") == ["'a\\x00b': not a file name"]
    Path("latin.yaml").write_bytes(b"name: \xe9")
    assert problems("latin.yaml") == ["latin.yaml: not a job file: not UTF-8 text (byte 7)"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(write: Write) -> None:
    path = write(GOOD)
    os.chmod(path, 0)
    assert problems(path) == ["job.yaml: cannot be read: Permission denied"]
