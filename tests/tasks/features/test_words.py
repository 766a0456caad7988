"""Words with tags: the course's alignment, token for token, of WordPiece and of byte-level BPE; bad rows fail alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from transformers import AutoTokenizer, GPT2Tokenizer

from hfray.errors import SpecError
from hfray.tasks.features.labels import index_labels, names_in
from hfray.tasks.features.words import Words
from tests.models.support import letter_tokenizer
from tests.tasks.features.support import Panicking, Slow, encode, fails, listed, mapped, plainly, wnut17
from tests.tasks.support import roberta_tokenizer

NAMED = {"text": pa.list_(pa.string()), "tags": pa.list_(pa.string())}
NUMBERED = {"text": pa.list_(pa.string()), "tags": pa.list_(pa.int64())}
GOOD = [
    {"text": ["ab", "c"], "tags": ["B-x", "O"]},
    {"text": ["abcd"] * 5, "tags": ["O", "B-x", "I-x", "O", "B-x"]},
    {"text": ["a"], "tags": ["O"]},
]
NAMES = ("B-x", "I-x", "O")


def words(tokenizer: Any, max_length: int | None = None, present: dict[str, Any] = NAMED, **options: Any) -> Words:
    return Words(Words.Options(**options), tokenizer, max_length, present)


def gpt2(shared_data: Path) -> Any:
    folder = shared_data / "tokenizers" / "gpt2"
    return GPT2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), add_prefix_space=True)


def bert(shared_data: Path) -> Any:
    return AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "all-MiniLM-L6-v2")


def align_labels_with_tokens(labels: list[int], word_ids: list[int | None], names: tuple[str, ...] | None) -> list[int]:
    """That of https://huggingface.co/learn/llm-course/chapter7/2, with names in place of odd numbers for B-; without
    names that of https://huggingface.co/docs/transformers/tasks/token_classification: a word's first token only."""
    new_labels = []
    current_word = None
    for word_id in word_ids:
        if word_id != current_word:
            # Start of a new word!
            current_word = word_id
            label = -100 if word_id is None else labels[word_id]
            new_labels.append(label)
        elif word_id is None or names is None:
            # Special token, or the same word as the token before
            new_labels.append(-100)
        else:
            # Same word as previous token
            name = names[labels[word_id]]
            # If the label is B-XXX we change it to I-XXX
            inner = f"I-{name[2:]}"
            new_labels.append(names.index(inner) if name.startswith("B-") and inner in names else labels[word_id])
    return new_labels


@pytest.mark.slow
@pytest.mark.parametrize("make", [bert, gpt2, lambda _: roberta_tokenizer()])
@pytest.mark.parametrize("every", [False, True])
def test_wnut17_as_the_course_aligns_it(shared_data: Path, make: Any, every: bool) -> None:
    tokenizer = make(shared_data)
    sentences = wnut17(shared_data)
    names = names_in([tags for _, tags in sentences])

    def tokenize_and_align_labels(examples: Any) -> Any:
        inputs = tokenizer(examples["text"], truncation=True, max_length=32, is_split_into_words=True)
        aligned = [
            align_labels_with_tokens([names.index(tag) for tag in tags], inputs.word_ids(i), names if every else None)
            for i, tags in enumerate(examples["tags"])
        ]
        return {"input_ids": inputs["input_ids"], "labels": aligned}

    columns = {"text": [each for each, _ in sentences], "tags": [tags for _, tags in sentences]}
    wanted = mapped(columns, tokenize_and_align_labels)
    rows = [{"text": text, "tags": tags} for text, tags in sentences]
    made = encode(words(tokenizer, 32, labels=names, label_all_pieces=every), rows)
    assert plainly(made) == wanted
    whole = tokenizer(columns["text"], is_split_into_words=True)["input_ids"]
    assert made.truncated == tuple(row for row, ids in enumerate(whole) if len(ids) > 32) != ()
    numbered = [{"text": text, "tags": [names.index(tag) for tag in tags]} for text, tags in sentences]
    by_number = words(tokenizer, 32, NUMBERED, labels=names, label_all_pieces=every)
    assert plainly(encode(by_number, numbered)) == wanted
    if not every:
        features = words(tokenizer, 32)
        named = encode(features, rows).columns["labels"]
        assert names_in(named) == names  # type: ignore[arg-type]
        final = index_labels(named, names, features.schema().field("labels").type)  # type: ignore[arg-type]
        assert listed(final) == wanted["labels"]
        assert plainly(encode(words(tokenizer, 32, NUMBERED), numbered)) == wanted


@pytest.mark.parametrize("stride", [1, 3, 5])
def test_windows_label_a_token_as_the_whole_row_does(stride: int) -> None:
    tokenizer = letter_tokenizer()
    text = ["abc", "d", "", "efghijklmnop", "qr", "s", "tuvw"] * 3
    tags = ["B-x", "O", "O", "B-x", "I-x", "O", "B-x"] * 3
    for every in (False, True):
        options = {"labels": NAMES, "label_all_pieces": every}
        whole = plainly(encode(words(tokenizer, None, **options), [{"text": text, "tags": tags}]))
        made = encode(words(tokenizer, 10, stride=stride, **options), [{"text": text, "tags": tags}])
        parts = plainly(made)
        inputs = tokenizer(
            [text],
            is_split_into_words=True,
            truncation=True,
            max_length=10,
            stride=stride,
            return_overflowing_tokens=True,
        )
        assert parts["input_ids"] == inputs["input_ids"]
        ids, labels = whole["input_ids"][0][1:-1], whole["labels"][0][1:-1]
        for number, (part, part_labels) in enumerate(zip(parts["input_ids"], parts["labels"], strict=True)):
            start = number * (8 - stride)
            assert part[1:-1] == ids[start : start + 8]
            assert part_labels == [-100, *labels[start : start + 8], -100]
        assert not made.truncated


def test_a_row_without_windows_loses_its_end() -> None:
    made = encode(words(letter_tokenizer(), 6), GOOD)
    assert made.truncated == (1,)
    assert made.columns["labels"] == [
        [None, "B-x", None, "O", None],
        [None, "O", None, None, None, None],
        [None, "O", None],
    ]


def test_max_chars_cuts_words_and_tags_alike() -> None:
    features = words(letter_tokenizer(), max_chars=9, over_max_chars="truncate")
    made = encode(features, GOOD)
    assert made.truncated == (1,)
    assert [name for name in made.columns["labels"][1] if name] == ["O", "B-x"]


@pytest.mark.parametrize(
    ("bad", "type_", "message"),
    [
        ({"text": None, "tags": []}, "NullText", "text is null"),
        ({"text": "ab", "tags": ["O"]}, "WrongType", "text is str, not a list"),
        ({"text": ["ab"], "tags": None}, "NullLabel", "tags is null"),
        ({"text": ["ab"], "tags": "O"}, "WrongType", "tags is str"),
        ({"text": ["ab", "c"], "tags": ["O"]}, "TagsMismatch", "text has 2 words and tags 1 tags"),
        ({"text": [], "tags": []}, "EmptyText", "text has no words"),
        ({"text": ["", " "], "tags": ["O", "O"]}, "EmptyText", "text has no tokens"),
        ({"text": ["a", None], "tags": ["O", "O"]}, "NullText", "text[1] is null"),
        ({"text": ["a", 3], "tags": ["O", "O"]}, "WrongType", "text[1] is int"),
        ({"text": ["a\ud800"], "tags": ["O"]}, "InvalidText", "lone surrogate"),
        ({"text": ["a\x00"], "tags": ["O"]}, "InvalidText", "NUL"),
        ({"text": ["a", "b"], "tags": ["O", None]}, "NullLabel", "tags[1] is null"),
        (
            {"text": ["a", "b"], "tags": ["O", "B-y"]},
            "UnknownLabel",
            "tags[1] 'B-y' is not in labels; did you mean 'B-x'",
        ),
        ({"text": ["a", "b"], "tags": ["O", 1]}, "WrongType", "tags[1] is int"),
        ({"text": ["a" * 50], "tags": ["O"]}, "TextTooLong", "over max_chars 40"),
        ({"text": ["PANIC"], "tags": ["O"]}, "TokenizerFailure", "index out of bounds"),
        ({"text": ["a"]}, "MissingColumn", "column 'tags' is missing"),
    ],
)
@pytest.mark.parametrize("stride", [0, 2])
def test_a_bad_row_fails_alone(bad: dict[str, Any], type_: str, message: str, stride: int) -> None:
    features = words(letter_tokenizer(), 8, labels=NAMES, max_chars=40, stride=stride)
    features._encoder._backend = Panicking(features._encoder._backend)
    found, text = fails(features, GOOD, bad)
    assert found == type_
    assert message in text


def test_the_words_and_tags_of_a_row_are_left_as_they_were() -> None:
    row = {"text": ["ab", "c"], "tags": ["B-x", "O"]}
    encode(words(letter_tokenizer()), [row])
    assert row == {"text": ["ab", "c"], "tags": ["B-x", "O"]}


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SpecError, match="column 'text' is string, not a list"):
        words(letter_tokenizer(), 8, NAMED | {"text": pa.string()})
    with pytest.raises(SpecError, match="a tag in column 'tags' is double"):
        words(letter_tokenizer(), 8, NAMED | {"tags": pa.list_(pa.float64())})
    with pytest.raises(SpecError, match="label_all_pieces needs labels"):
        words(letter_tokenizer(), 8, label_all_pieces=True)
    with pytest.raises(SpecError, match="mode words: stride 6 leaves no step between windows of 6 tokens"):
        words(letter_tokenizer(), 8, stride=6)
    with pytest.raises(SpecError, match="needs a fast tokenizer"):
        words(Slow(letter_tokenizer()), 8)


def test_label_names() -> None:
    assert words(letter_tokenizer()).label_names is None
    assert words(letter_tokenizer(), labels=NAMES).label_names == NAMES


def test_no_rows() -> None:
    for options in ({}, {"labels": NAMES}):
        assert plainly(encode(words(letter_tokenizer(), **options), [])) == {"input_ids": [], "labels": []}
