"""A job as another machine reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfray.errors import SpecError
from hfray.spec.load import load_job
from hfray.submit.resolve import Resolved, resolved


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def score(folder: Path, **changes: Any) -> Resolved:
    job = {
        "kind": "score", "name": "trial", "model": {"path": "org/name"}, "task": {"name": "feature-extraction"},
        "input": {"path": "in.jsonl"}, "output": {"path": "out"},
    }  # fmt: skip
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job | changes))
    return resolved(load_job(path))


def test_local_paths_are_absolute_and_to_be_seen_by_all_nodes(here: Path) -> None:
    (here / "model").mkdir()
    found = score(here, model={"path": "model", "adapter": "./adapter"}, input={"path": ["a/*.jsonl", "b/../c.jsonl"]})
    values = found.job.model_dump(mode="json")
    assert values["model"]["path"] == str(here / "model")
    assert values["model"]["adapter"] == str(here / "adapter")
    assert values["input"]["path"] == [str(here / "a/*.jsonl"), str(here / "c.jsonl")]
    assert values["output"]["path"] == found.output == str(here / "out")
    assert set(found.reads) == {str(here / each) for each in ("model", "adapter", "a", "c.jsonl")}


def test_what_lies_elsewhere_stays_as_it_is(here: Path) -> None:
    found = score(
        here,
        model={"path": "package:some/model"},
        input={"path": "org/data", "format": "huggingface"},
        output={"path": "s3://bucket/out"},
    )
    values = found.job.model_dump(mode="json")
    assert values["model"]["path"] == "package:some/model"
    assert values["input"]["path"] == ["org/data"]
    assert values["output"]["path"] == "s3://bucket/out"
    assert (found.reads, found.output) == ((), None)


def test_a_saved_data_set_is_a_folder_and_a_named_adapter_may_be_one(here: Path) -> None:
    (here / "org" / "data").mkdir(parents=True)
    found = score(
        here,
        model={"path": "org/name", "adapters": {"one": "./one", "two": {"path": "org/two"}}},
        input={"path": "org/data", "format": "huggingface"},
    )
    adapters = found.job.model_dump(mode="json")["model"]["adapters"]
    assert adapters["one"]["path"] == str(here / "one")
    assert adapters["two"]["path"] == "org/two"
    assert set(found.reads) == {str(here / "one"), str(here / "org/data")}


def test_the_id_follows_the_answers_and_where_they_go(here: Path) -> None:
    first = score(here)
    assert len(first.id) == 12
    assert score(here, workers={"max": 7}, name="other").id == first.id
    assert score(here, output={"path": str(here / "out")}).id == first.id
    assert score(here, output={"path": "elsewhere"}).id != first.id
    assert score(here, seed=1).id != first.id


def test_a_deepspeed_file_travels_inside_the_job(here: Path) -> None:
    (here / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 2}}))
    job = {
        "kind": "train", "name": "tune", "model": {"path": "org/name"}, "task": "text-classification",
        "input": {"train": "train.csv"}, "output": {"path": "out"}, "deepspeed": "ds.json",
    }  # fmt: skip
    path = here / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    found = resolved(load_job(path))
    values = found.job.model_dump(mode="json")
    assert values["deepspeed"] == {"zero_optimization": {"stage": 2}}
    assert values["input"]["train"]["path"] == [str(here / "train.csv")]
    (here / "ds.json").unlink()
    with pytest.raises(SpecError, match=r"ds\.json cannot be read"):
        resolved(load_job(path))


def test_a_file_url_is_the_path_that_it_names(here: Path) -> None:
    found = score(here, input={"path": f"file://{here}/a%20b.jsonl"})
    assert found.job.model_dump(mode="json")["input"]["path"] == [f"{here}/a b.jsonl"]
    assert f"{here}/a b.jsonl" in found.reads
