"""What `hfray explain` knows is what the spec classes say."""

from __future__ import annotations

import jsonschema
import pytest

from hfray.errors import SpecError
from hfray.spec.explain import explain, json_schema
from hfray.tasks import TASKS


def test_every_field_is_documented() -> None:
    undocumented = [row.path for row in explain() if not row.doc and not row.path.endswith(".name")]
    assert undocumented == []


def test_topics() -> None:
    (row,) = explain("engine.max_batch_tokens")
    assert (row.path, row.type, row.default, row.operational) == (
        "engine[batch].max_batch_tokens", "integer | auto", "auto", True,
    )  # fmt: skip
    assert {row.path for row in explain("workers")} == {
        "workers", "workers.min", "workers.max", "workers.cpus", "workers.gpus", "workers.memory_gb",
    }  # fmt: skip
    assert [row.path for row in explain("shard_rows")] == ["shard_rows"]
    assert any(row.path == "task[fill-mask].targets" for row in explain("fill-mask"))
    assert {row.path.split("[")[1].split("]")[0] for row in explain("task.top_k")} >= {
        "fill-mask",
        "question-answering",
    }
    with pytest.raises(SpecError, match=r"did you mean engine\.max_batch_tokens"):
        explain("max_batch_token")


def test_every_task_can_be_asked_for() -> None:
    for name in TASKS:
        assert explain(name)[0].path == f"task[{name}].name"


def test_the_schema_accepts_a_job_and_refuses_a_typo() -> None:
    schema = json_schema("score")
    jsonschema.Draft202012Validator.check_schema(schema)
    job = {
        "kind": "score", "name": "a", "model": {"path": "m"}, "task": {"name": "fill-mask", "top_k": 2},
        "input": {"path": ["x.csv"]}, "output": {"path": "o"},
    }  # fmt: skip
    jsonschema.validate(job, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job | {"shardrows": 1}, schema)
    with pytest.raises(SpecError, match="known: score"):
        json_schema("serve")
