"""Windows over contexts: the course's own preprocessing, token for token and answer for answer; bad rows fail alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from hfray.errors import SpecError
from hfray.tasks.features.windows import Windows
from tests.models.support import letter_tokenizer
from tests.tasks.features.support import Panicking, Slow, encode, fails, listed, mapped, plainly, squad
from tests.tasks.support import bert_tokenizer, roberta_tokenizer

ANSWERS = pa.struct({"text": pa.list_(pa.string()), "answer_start": pa.list_(pa.int32())})
PRESENT = {"question": pa.string(), "context": pa.string(), "answers": ANSWERS, "id": pa.string()}
CONTEXT = "a bc " * 20 + "z yx"
GOOD = [
    {"id": "1", "question": "a?", "context": "b cd e", "answers": {"text": ["cd"], "answer_start": [2]}},
    {"id": "2", "question": "a?", "context": CONTEXT, "answers": {"text": ["z y"], "answer_start": [100]}},
    {"id": "3", "question": "a?", "context": "b", "answers": {"text": [], "answer_start": []}},
]


def windows(tokenizer: Any, max_length: int | None, present: dict[str, Any] = PRESENT, **options: Any) -> Windows:
    return Windows(Windows.Options(**options), tokenizer, max_length, present)


def course(tokenizer: Any, max_length: int, stride: int) -> Any:
    """`preprocess_training_examples` of https://huggingface.co/learn/llm-course/chapter7/7, but that questions lose
    their leading blanks only (as in Transformers' run_qa.py), nothing is padded, and places outside the context are
    -1."""

    def preprocess_training_examples(examples: Any) -> Any:
        questions = [q.lstrip() for q in examples["question"]]
        inputs = tokenizer(
            questions,
            examples["context"],
            max_length=max_length,
            truncation="only_second",
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )

        sample_map = inputs.pop("overflow_to_sample_mapping")
        answers = examples["answers"]
        start_positions = []
        end_positions = []

        for i, offset in enumerate(inputs["offset_mapping"]):
            sample_idx = sample_map[i]
            answer = answers[sample_idx]
            start_char = answer["answer_start"][0]
            end_char = answer["answer_start"][0] + len(answer["text"][0])
            sequence_ids = inputs.sequence_ids(i)

            # Find the start and end of the context
            idx = 0
            while sequence_ids[idx] != 1:
                idx += 1
            context_start = idx
            while idx < len(sequence_ids) and sequence_ids[idx] == 1:
                idx += 1
            context_end = idx - 1

            # If the answer is not fully inside the context, label is (0, 0)
            if offset[context_start][0] > start_char or offset[context_end][1] < end_char:
                start_positions.append(0)
                end_positions.append(0)
            else:
                # Otherwise it's the start and end token positions
                idx = context_start
                while idx <= context_end and offset[idx][0] <= start_char:
                    idx += 1
                start_positions.append(idx - 1)

                idx = context_end
                while idx >= context_start and offset[idx][1] >= end_char:
                    idx -= 1
                end_positions.append(idx + 1)

        made = {name: inputs[name] for name in ("input_ids", "token_type_ids") if name in tokenizer.model_input_names}
        made["start_positions"] = start_positions
        made["end_positions"] = end_positions
        made["offset_mapping"] = [
            [
                list(o) if sequence_id == 1 else [-1, -1]
                for o, sequence_id in zip(offset, inputs.sequence_ids(i), strict=True)
            ]
            for i, offset in enumerate(inputs["offset_mapping"])
        ]
        made["example_id"] = [examples["id"][i] for i in sample_map]
        return made

    return preprocess_training_examples


def check(tokenizer: Any, rows: list[dict[str, Any]], max_length: int = 384, stride: int = 128) -> dict[str, list[Any]]:
    """The mode's examples, which are the course's."""
    made = plainly(encode(windows(tokenizer, max_length, stride=stride), rows))
    columns = {name: [row[name] for row in rows] for name in PRESENT}
    assert made == mapped(columns, course(tokenizer, max_length, stride))
    return made


@pytest.mark.slow
def test_squad_as_the_course_does(shared_data: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "all-MiniLM-L6-v2")
    rows = squad(shared_data, "squad_v1.1/dev-v1.1.json")[::4]
    made = check(tokenizer, rows)
    assert len(rows) > 2500
    assert len(made["input_ids"]) > len(rows)
    outside = sum(start == 0 for start in made["start_positions"])
    assert 0 < outside <= len(made["input_ids"]) - len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["de", "zh", "en"])
@pytest.mark.parametrize("make", [bert_tokenizer, roberta_tokenizer])
def test_xquad_as_the_course_does(shared_data: Path, language: str, make: Any) -> None:
    """Many windows each; characters of several bytes; a tokenizer without token types."""
    rows = squad(shared_data, f"xquad/xquad.{language}.json")[::4]
    tokenizer = make()
    windowed = [row for row in rows if len(tokenizer(row["question"])["input_ids"]) < 90]
    windowed = [row | {"question": "  " * (index % 2) + row["question"]} for index, row in enumerate(windowed)]
    made = check(tokenizer, windowed, max_length=160, stride=50)
    assert len(made["input_ids"]) > 1.5 * len(windowed)


def test_the_tokens_of_an_answer_spell_it() -> None:
    made = encode(windows(letter_tokenizer(), 16), GOOD)
    columns = plainly(made)
    spelt: dict[int, set[str]] = {}
    for index, row in enumerate(made.rows.tolist()):
        start, end = (columns[name][index] for name in ("start_positions", "end_positions"))
        offsets = columns["offset_mapping"][index]
        text = "" if start == end == 0 else GOOD[row]["context"][offsets[start][0] : offsets[end][1]]
        spelt.setdefault(row, set()).add(text)
        assert columns["example_id"][index] == GOOD[row]["id"]
    assert spelt == {0: {"cd"}, 1: {"", "z y"}, 2: {""}}


@pytest.mark.parametrize(
    "answers",
    [
        None,
        {"text": [], "answer_start": []},
        {"text": None, "answer_start": None},
        {"text": [""], "answer_start": [0]},
    ],
)
def test_no_answer_is_at_the_first_token(answers: Any) -> None:
    made = plainly(encode(windows(letter_tokenizer(), 16), [GOOD[1] | {"answers": answers}]))
    assert set(made["start_positions"]) == set(made["end_positions"]) == {0}
    assert len(made["start_positions"]) > 1


def test_without_answers_there_are_no_positions() -> None:
    features = windows(letter_tokenizer(), 16, {name: PRESENT[name] for name in ("question", "context")})
    made = encode(features, [{"question": row["question"], "context": row["context"]} for row in GOOD])
    whole = plainly(encode(windows(letter_tokenizer(), 16), GOOD))
    assert plainly(made) == {name: whole[name] for name in ("input_ids", "offset_mapping")}


def test_an_id_is_text() -> None:
    features = windows(letter_tokenizer(), 16, PRESENT | {"id": pa.int64()})
    made = encode(features, [GOOD[0] | {"id": 7}, GOOD[0] | {"id": None}])
    assert made.columns["example_id"] == ["7", None]


def test_an_answer_beyond_what_max_chars_left() -> None:
    features = windows(letter_tokenizer(), 64, max_chars=10, over_max_chars="truncate")
    made = encode(features, [*GOOD, GOOD[0] | {"question": "  " + "a" * 9}])
    assert made.truncated == (1, 3)
    assert listed(made.columns["start_positions"])[1] == 0


def test_the_place_of_no_answer_is_the_cls_token() -> None:
    """A tokenizer that begins with another token has it further on."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = letter_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A", pair="[SEP] [CLS] $A [SEP] $B:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made = plainly(encode(windows(tokenizer, 16), [GOOD[2]]))
    assert made["start_positions"] == made["end_positions"] == [1]


@pytest.mark.parametrize(
    ("changes", "type_", "message"),
    [
        ({"question": None}, "NullText", "question is null"),
        ({"question": "  "}, "EmptyText", "question is empty"),
        ({"context": ["a"]}, "WrongType", "context is list"),
        ({"context": "a\ud800"}, "InvalidText", "lone surrogate"),
        ({"context": "a\x00"}, "InvalidText", "NUL"),
        (
            {"question": "a" * 30, "context": CONTEXT, "answers": None},
            "QuestionTooLong",
            "windows of 20 tokens that share 5 take at most 11",
        ),
        ({"answers": "cd"}, "WrongType", "answers is str"),
        ({"answers": {"text": "cd", "answer_start": [2]}}, "WrongType", "answers.text is str, not a list"),
        ({"answers": {"text": ["cd"], "answer_start": []}}, "WrongType", "1 texts and 0 starts"),
        ({"answers": {"text": ["cd"], "answer_start": ["2"]}}, "WrongType", "str at str"),
        ({"answers": {"text": ["cd"], "answer_start": [3]}}, "AnswerMismatch", "'cd' is not at character 3 .* is 'd '"),
        ({"answers": {"text": ["cd"], "answer_start": [-4]}}, "AnswerMismatch", "there is nothing"),
        ({"answers": {"text": ["cd"], "answer_start": [99]}}, "AnswerMismatch", "there is nothing"),
        ({"context": "PANIC", "answers": None}, "TokenizerFailure", "index out of bounds"),
    ],
)
def test_a_bad_row_fails_alone(changes: dict[str, Any], type_: str, message: str) -> None:
    features = windows(letter_tokenizer(), 20, stride=5)
    encoder = features._windows.encoder
    encoder._backend = Panicking(encoder._backend)
    found, text = fails(features, GOOD, GOOD[0] | changes)
    assert found == type_
    assert re.search(message, text), text


def test_a_missing_column() -> None:
    assert fails(windows(letter_tokenizer(), 20), GOOD, {"question": "a"})[0] == "MissingColumn"


def test_lengths_by_default() -> None:
    assert windows(letter_tokenizer(1000), None).max_length == 384
    short = windows(letter_tokenizer(64), None)
    assert short.max_length == 64
    assert short._windows.stride == 32
    assert windows(letter_tokenizer(1000), None)._windows.stride == 128


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SpecError, match="mode windows: stride 13 leaves no step between windows of 13 tokens"):
        windows(letter_tokenizer(), 16, stride=13)
    with pytest.raises(SpecError, match="column 'answers' is list<item: string>; it must be a struct"):
        windows(letter_tokenizer(), 16, PRESENT | {"answers": pa.list_(pa.string())})
    slow = Slow(letter_tokenizer())
    slow.num_special_tokens_to_add = lambda pair: 3  # type: ignore[attr-defined]
    with pytest.raises(SpecError, match="needs a fast tokenizer"):
        windows(slow, 16)


def test_no_rows() -> None:
    made = encode(windows(letter_tokenizer(), 16), [])
    assert set(map(len, plainly(made).values())) == {0}
