"""hfray.json: what is written is read, and what hfray did not write is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hfray.errors import SpecError
from hfray.models.result import FACTS_FILE, AdapterFacts, BaseFacts, ResultFacts, facts_of, read_facts, write_facts
from hfray.models.source import resolve_source
from tests.models.support import save_model

FACTS = ResultFacts(
    kind="train",
    name="banking-lora",
    base=BaseFacts(path="org/base", revision="a" * 40),
    method={"name": "lora", "r": 16},
    adapter=AdapterFacts(merged=False, method="LORA"),
    task={"name": "text-classification"},
    labels=("cold", "warm"),
    metrics={"accuracy": 0.9, "loss": float("nan")},
    training={"steps": 10},
    spec="kind: train\n",
    versions={"hfray": "0.1.0"},
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_facts(tmp_path, FACTS)
    found = read_facts(tmp_path)
    assert found == FACTS
    assert found.metrics == {"accuracy": 0.9, "loss": None}
    assert [file.name for file in tmp_path.iterdir()] == [FACTS_FILE]


def test_a_folder_without_facts_has_none(tmp_path: Path) -> None:
    assert read_facts(tmp_path) is None
    assert facts_of(resolve_source(str(save_model(tmp_path / "model")), None)) is None


def test_what_a_later_version_adds_is_left_out(tmp_path: Path) -> None:
    (tmp_path / FACTS_FILE).write_text(json.dumps({**json.loads(FACTS.to_json()), "colour": "blue"}))
    assert read_facts(tmp_path) == FACTS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[]", "not written by hfray"),
        ('{"kind": "score", "name": "x"}', "kind: "),
        ('{"kind": "train", "name": "x", "base": {"paht": "y"}}', r"base\.path"),
    ],
)
def test_other_files_of_that_name_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / FACTS_FILE).write_text(text)
    with pytest.raises(SpecError, match=message):
        read_facts(tmp_path)


def test_a_base_is_remembered_so_that_it_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    source = resolve_source("model", None)
    base = BaseFacts.of(source)
    assert base == BaseFacts(path=str(tmp_path / "model"), content=source.identity["content"])
    assert not base.is_shared
    assert BaseFacts(path="org/base", revision="a" * 40).is_shared
    assert BaseFacts(path="package:weights/model", content="b" * 64).is_shared


def test_facts_of_a_source(tmp_path: Path) -> None:
    write_facts(save_model(tmp_path / "model"), FACTS)
    assert facts_of(resolve_source(str(tmp_path / "model"), None)) == FACTS
