"""What `hfray explain` knows is what the spec classes say."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from hfray.errors import SpecError
from hfray.spec.explain import explain, json_schema
from hfray.spec.kinds import job_kinds
from hfray.spec.load import load_job
from hfray.tasks import TASKS
from tests.spec.jobs import GOOD


def test_kinds_come_first() -> None:
    served = [("endpoint", "serve file"), ("gateway", "serve file")]
    assert [(row.path, row.type) for row in explain()] == [*((name, "kind") for name in job_kinds()), *served]
    assert all(row.doc for row in explain())


@pytest.mark.parametrize("topic", [*job_kinds(), "endpoint", "gateway", *TASKS, "task", "engine"])
def test_every_field_is_documented(topic: str) -> None:
    assert [row.path for row in explain(topic) if not row.doc] == []


def test_a_kind_shows_every_section_and_what_most_tasks_share() -> None:
    rows = {row.path: row for row in explain("score")}
    assert {"model.path", "input.where", "workers.memory_gb", "seed", "task.max_chars"} <= set(rows)
    assert "task.top_k" not in rows
    assert rows["name"].required
    assert rows["output.path"].operational
    assert not rows["shard_rows"].operational
    assert rows["engine"].default == "null"
    assert rows["engine.seconds_per_item"].members == ("fake",)


def test_topics() -> None:
    (row,) = explain("engine.max_batch_tokens")
    assert (row.path, row.type, row.default, row.operational, row.members) == (
        "engine.max_batch_tokens", "integer >= 1 | auto", "auto", True, ("batch",),
    )  # fmt: skip
    assert explain("max_batch_tokens") == explain("score.engine.max_batch_tokens") == [row]
    assert [row.path for row in explain("workers")] == [
        "workers", "workers.min", "workers.max", "workers.cpus", "workers.gpus", "workers.memory_gb", "workers.labels",
        "workers", "workers.max", "workers.gpus", "workers.labels",  # of training they are other things
    ]  # fmt: skip
    train = explain("train.workers")
    assert [row.path for row in train] == [row.path for row in explain("score.workers")]
    assert all(row.members == () for row in train)
    assert [row.path for row in explain("shard_rows")] == ["shard_rows"]
    assert {name for row in explain("task.top_k") for name in row.members} >= {"fill-mask", "question-answering"}
    assert [row.path for row in explain("fill-mask.top_k")] == ["task.top_k"]


@pytest.mark.parametrize("name", [*TASKS, "batch", "continuous", "fake"])
def test_every_task_and_engine_can_be_asked_for(name: str) -> None:
    rows = explain(name)
    assert rows[0].path in ("task.name", "engine.name")
    assert all(row.members == () for row in rows)


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("max_batch_token", "nothing is called max_batch_token, did you mean engine.max_batch_tokens?"),
        ("wokers", "nothing is called wokers, did you mean workers?"),
        ("text-clasification", "nothing is called text-clasification, did you mean text-classification?"),
        ("xyzzy", "nothing is called xyzzy; `hfray explain score` shows every field"),
    ],
)
def test_unknown_topics(topic: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        explain(topic)
    assert str(caught.value) == message


def test_the_schema_says_what_the_loader_says(tmp_path: Path) -> None:
    schema = json_schema("score")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["shard_rows"]["description"].startswith("Rows of one shard")
    assert schema["properties"]["max_error_rate"]["operational"] is True
    validator = jsonschema.Draft202012Validator(schema)
    path = tmp_path / "job.yaml"
    for old, new, right in (
        ("", "", True),
        ("path: data.csv", "path: [a.csv, b.csv]", True),
        ("name: batch, ", "", True),
        ("max_batch_tokens: 4096", "max_batch_tokens: auto", True),
        ("kind: score\n", "", False),
        ("  name: text-classification\n", "", False),
        ("top_k", "topk", False),
        ("max: 2", "max: x", False),
        ("output: {path: out/intents}\n", "", False),
    ):
        path.write_text(GOOD.replace(old, new))
        assert validator.is_valid(yaml.safe_load(path.read_text())) == right, (old, new)
        if right:
            load_job(path)
        else:
            with pytest.raises(SpecError):
                load_job(path)


def test_schemas_of_unknown_kinds() -> None:
    with pytest.raises(SpecError, match="unknown kind 'serve'; known: score"):
        json_schema("serve")
