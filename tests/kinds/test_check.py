"""What can be known to be wrong before a worker starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForSequenceClassification

from hfray.data.base import DEFAULT_OPTIONS
from hfray.data.formats import index_file
from hfray.data.listing import list_files
from hfray.data.plan import Plan
from hfray.errors import SpecError
from hfray.kinds.check import Checked, check_columns, check_job, identity_of_model
from hfray.kinds.rows import where_of
from hfray.spec.score import ScoreJob
from tests.models.lora_support import save_lora
from tests.models.support import save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def check(folder: Path, /, **changes: Any) -> Checked:
    spec: dict[str, Any] = {
        "name": "check",
        "model": {"path": str(folder)},
        "task": {"name": "text-classification"},
        "input": {"path": "in.parquet"},
        "output": {"path": "out"},
    }
    return check_job(ScoreJob.model_validate(spec | changes))


def plan(folder: Path, **columns: Any) -> Plan:
    pq.write_table(pa.table(columns), folder / "in.parquet")
    (file,) = list_files((str(folder / "in.parquet"),), "parquet")
    return Plan([index_file(file, 10, str(folder), DEFAULT_OPTIONS)])


def test_a_sound_job(model: Path, tmp_path: Path) -> None:
    checked = check(model, input={"path": "x", "where": "length(text) > 3", "columns": {"text": "body"}})
    assert checked.task.name == "text-classification"
    assert where_of(checked.job) is not None
    assert checked.result_type == checked.task.result_type()
    assert check_columns(checked, plan(tmp_path, body=["a"], n=[1])).schema.names == ["text", "n"]


def test_labels_of_the_job_replace_the_models(model: Path) -> None:
    checked = check(model, task={"name": "text-classification", "labels": ["a", "b", "c"]})
    assert checked.model.labels == ("a", "b", "c")
    with pytest.raises(SpecError, match=r"task\.labels has 2 names"):
        check(model, task={"name": "text-classification", "labels": ["a", "b"]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {"name": "question-answering"}}, "has no head for task question-answering; it can do"),
        ({"input": {"path": "x", "where": "text >"}}, "where"),
        ({"model": {"path": "/nowhere/at/all"}}, "nowhere"),
    ],
)
def test_mistakes_are_found(model: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check(model, **changes)


@pytest.mark.parametrize(
    ("changes", "who"),
    [
        ({}, "task text-classification"),
        ({"input": {"path": "x", "columns": {"text": "body"}, "where": "stars > 3"}}, r"input\.where"),
        ({"input": {"path": "x", "columns": {"text": "body"}}, "metrics": {"label": "intent"}}, r"metrics\.label"),
    ],
)
def test_missing_columns_are_named_with_who_needs_them(
    model: Path, tmp_path: Path, changes: dict[str, Any], who: str
) -> None:
    with pytest.raises(SpecError, match=who):
        check_columns(check(model, **changes), plan(tmp_path, body=["a"]))


def test_the_identity_of_a_folder_is_its_content(model: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    assert identity_of_model(check(copy).model) == identity_of_model(check(model).model)
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert identity_of_model(check(copy).model) != identity_of_model(check(model).model)


def test_adapters_that_rows_choose_between(model: Path, tmp_path: Path) -> None:
    base = AutoModelForSequenceClassification.from_pretrained(model)
    save_lora(base, tmp_path / "good", target_modules=["query"], task_type="SEQ_CLS")
    save_lora(base, tmp_path / "dora", target_modules=["query"], use_dora=True)
    spec = {"path": str(model), "adapters": {"good": str(tmp_path / "good")}}
    checked = check(model, model=spec)
    assert list(checked.model.adapters) == ["good"]
    assert set(identity_of_model(checked.model)["adapters"]) == {"good"}
    with pytest.raises(SpecError, match=r"model\.adapters: there is no column 'adapter'"):
        check_columns(checked, plan(tmp_path, text=["a"]))
    assert "adapter" in check_columns(checked, plan(tmp_path, text=["a"], adapter=["good"])).names
    with pytest.raises(SpecError, match="use_dora is more than plain LoRA"):
        check(model, model={"path": str(model), "adapters": {"dora": str(tmp_path / "dora")}})
    with pytest.raises(SpecError, match=r"has no adapter_config\.json"):
        check(model, model={"path": str(model), "adapters": {"none": str(model)}})
    for adapters, says in (({"Good": "x"}, "should match pattern"), ({"a": "x"}, "model.adapter is for all rows")):
        with pytest.raises(ValueError, match=says):
            check(model, model={"path": str(model), "adapter": "y", "adapters": adapters})


def test_a_head_that_every_adapter_brings_need_not_be_the_models(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", "AutoModel")
    labels = ("a", "b", "c")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, ignore_mismatched_sizes=True)
    save_lora(model, tmp_path / "with", target_modules=["query"], task_type="SEQ_CLS")
    save_lora(model, tmp_path / "without", target_modules=["query"])
    adapters = {"one": str(tmp_path / "with")}
    task = {"name": "text-classification", "labels": labels}
    check(base, model={"path": str(base), "adapters": adapters}, task=task)
    with pytest.raises(SpecError, match="has no head for task text-classification"):
        check(base, model={"path": str(base), "adapters": {**adapters, "two": str(tmp_path / "without")}}, task=task)
