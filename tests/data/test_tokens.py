"""`tokens.json`: what a reader of a tokenised folder is told, and how it learns that there is nothing to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfray.data.tokens import Tokens, TokenSplit, read_tokens
from hfray.errors import DataError, SpecError
from hfray.models.tokenizers import TokenizerFacts
from tests.models.support import letter_tokenizer

TOKENS = Tokens(
    fingerprint="f" * 64,
    source="0" * 64,
    tokenizer=TokenizerFacts.of(letter_tokenizer(), "org/letters"),
    mode="plain",
    task="text-classification",
    max_length=64,
    packed=False,
    labels=("cold", "hot"),
    columns={"input_ids": "list<item: int32>", "labels": "int32"},
    splits=(TokenSplit(name="train", parts=2, examples=15, tokens=99),),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tokens.json").write_text(TOKENS.model_dump_json())
    (tmp_path / "_SUCCESS").write_text("{}")
    (tmp_path / "data").mkdir()
    return tmp_path


def test_what_is_written_is_read(folder: Path) -> None:
    assert read_tokens(str(folder)) == TOKENS


def test_a_model_with_another_tokenizer_is_refused_with_both_fingerprints(folder: Path) -> None:
    other = letter_tokenizer()
    other.add_tokens(["new"])
    tokens = read_tokens(str(folder))
    tokens.tokenizer.check_same(letter_tokenizer(), "org/model")
    with pytest.raises(SpecError) as caught:
        tokens.tokenizer.check_same(other, "org/model")
    for part in (
        "org/letters",
        "org/model",
        TOKENS.tokenizer.fingerprint[:16],
        TokenizerFacts.of(other, "").fingerprint[:16],
    ):
        assert part in str(caught.value)


def test_no_tokens(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"data: no tokenised folder, .* did you mean .*/\.\.\?"):
        read_tokens(str(folder / "data"))
    (folder / "tokens.json").write_text('{"version": 2}')
    with pytest.raises(DataError, match=r"tokens\.json: is damaged"):
        read_tokens(str(folder))
    (folder / "_SUCCESS").unlink()
    with pytest.raises(SpecError, match="is not complete: run its job again"):
        read_tokens(str(folder))
