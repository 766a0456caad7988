"""What is told of where rows come from. What else workers are given is shown by what they make of it (test_train)."""

from __future__ import annotations

from pathlib import Path

from hfray.kinds.train_setup import data_names
from hfray.models.model_card import model_card
from hfray.models.result import ResultFacts
from hfray.spec.sections import InputSpec


def test_data_sets_of_the_hub_are_named_as_the_card_names_them(tmp_path: Path) -> None:
    paths = ["nyu-mll/glue", "hf://datasets/org/name@main", str(tmp_path)]
    names = data_names(InputSpec(path=paths, format="huggingface"))
    assert names == ("hf://datasets/nyu-mll/glue", "hf://datasets/org/name", str(tmp_path))
    files = data_names(InputSpec(path=["rows.csv", "hf://datasets/org/files/rows.csv"]))
    assert files == ("rows.csv", "hf://datasets/org/files/rows.csv")
    card = model_card(ResultFacts(kind="train", name="x", data=(*names, *files)))
    assert "datasets:\n- nyu-mll/glue\n- org/name\n- org/files\n" in card
    assert str(tmp_path) not in card
