"""question-answering against the 4.57 pipeline's arithmetic written out plainly, on real questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfray.errors import DataError, RowError, SpecError
from hfray.tasks.question_answering import QuestionAnswering, best_spans
from tests.tasks.support import (
    answer,
    bert_config,
    bert_tokenizer,
    info_of,
    make_task,
    run_items,
    tiny_model,
    truncated,
)

BERLIN = {"question": "Where did she live?", "context": "For many years Angela lived in Mecklenburg-Vorpommern. " * 2}


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model(QuestionAnswering.auto_model, bert_config(max_length=512))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return bert_tokenizer(512)


@pytest.fixture(scope="module")
def squad(shared_data: Path) -> list[dict[str, Any]]:
    def rows(file: str, step: int) -> list[dict[str, Any]]:
        articles = json.loads((shared_data / file).read_text(encoding="utf-8"))["data"]
        paragraphs = [paragraph for article in articles[::step] for paragraph in article["paragraphs"][:2]]
        return [
            {
                "question": each["qas"][0]["question"],
                "context": each["context"],
                "answers": {"text": [answer["text"] for answer in each["qas"][0]["answers"]]},
            }
            for each in paragraphs
        ]

    return rows("squad_v1.1/dev-v1.1.json", 12) + rows("xquad/xquad.zh.json", 16) + rows("xquad/xquad.de.json", 16)


def written_out(model: Any, tokenizer: Any, row: dict[str, Any], task: QuestionAnswering) -> list[dict[str, Any]]:
    """What QuestionAnsweringPipeline of Transformers 4.57 computes, over full matrices and through the tokenizer's own
    word look-ups."""
    options = task.options
    (encoded,) = task.encode([row])
    assert not isinstance(encoded, RowError)
    outputs = run_items(model, encoded.items)
    max_length = min(384, options.max_length or 384)
    encodings = tokenizer(
        row["question"],
        row["context"],
        truncation="only_second",
        max_length=max_length,
        stride=options.doc_stride or min(128, max_length // 2),
        return_overflowing_tokens=True,
    ).encodings
    assert [item.inputs["input_ids"].tolist() for item in encoded.items] == [each.ids for each in encodings]
    answers: list[dict[str, Any]] = []
    null = 1e6
    for output, encoding in zip(outputs, encodings, strict=True):
        allowed = np.array([sequence == 1 for sequence in encoding.sequence_ids])
        allowed[0] = True
        start, end = (np.where(allowed, output[key], -10000.0) for key in ("start", "end"))
        start, end = (np.exp(each - each.max()) / np.exp(each - each.max()).sum() for each in (start, end))
        null = min(null, start[0] * end[0])
        start[0] = end[0] = 0
        scores = np.tril(np.triu(np.outer(start, end)), options.max_answer_length - 1).ravel()
        for index in np.argsort(-scores, kind="stable")[: 2 * options.top_k + 10]:
            if scores[index] == 0:
                continue
            words = [encoding.token_to_word(int(token)) for token in divmod(index, len(start))]
            first, last = encoding.word_to_chars(words[0], 1)[0], encoding.word_to_chars(words[1], 1)[1]
            text = row["context"][first:last]
            same = next((each for each in answers if each["answer"].lower() == text.lower()), None)
            if same is None:
                answers.append({"answer": text, "score": scores[index], "start": first, "end": last})
            else:
                same["score"] += scores[index]
    if options.no_answer:
        answers.append({"answer": "", "score": null, "start": 0, "end": 0})
    return sorted(answers, key=lambda each: -each["score"])[: options.top_k]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 5, "max_answer_length": 15},
        {"top_k": 3, "no_answer": True},
        {"top_k": 4, "max_length": 96, "doc_stride": 24, "max_answer_length": 7},
        {"top_k": 30, "max_length": 80, "doc_stride": 20, "no_answer": True},
    ],
    ids=["defaults", "several", "no answer", "windows", "many"],
)
@pytest.mark.slow
def test_answers_equal_those_of_transformers_4(
    model: Any, tokenizer: Any, squad: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    task = make_task(QuestionAnswering, model, tokenizer, **options)
    for row, found in zip(squad, answer(task, model, squad), strict=True):
        wanted = written_out(model, tokenizer, row, task)
        assert [(each["answer"], each["start"], each["end"]) for each in found] == [
            (each["answer"], each["start"], each["end"]) for each in wanted
        ]
        assert [each["score"] for each in found] == pytest.approx([each["score"] for each in wanted], abs=1e-6)
        assert all(each["answer"] == row["context"][each["start"] : each["end"]] for each in found)


def test_long_contexts_are_several_items(model: Any, tokenizer: Any, squad: list[dict[str, Any]]) -> None:
    context = " ".join(row["context"] for row in squad[:6])
    task = make_task(QuestionAnswering, model, tokenizer)
    (encoded,) = task.encode([{"question": squad[-1]["question"], "context": context}])
    assert len(encoded.items) > 3
    assert max(item.num_tokens for item in encoded.items) == 384
    (found,) = task.decode(run_items(model, encoded.items), encoded.carry)
    assert found["answer"] == context[found["start"] : found["end"]]


@pytest.mark.parametrize(("start", "end", "words"), [(2, 2, "Berlin"), (1, 2, "in Berlin")])
def test_the_answer_is_where_the_logits_point(model: Any, tokenizer: Any, start: int, end: int, words: str) -> None:
    task = make_task(QuestionAnswering, model, tokenizer, no_answer=True)
    (encoded,) = task.encode([{"question": "Where?", "context": "Lives in Berlin."}])
    logits = np.zeros((2, encoded.items[0].num_tokens), dtype=np.float32)
    first = encoded.items[0].inputs["input_ids"].tolist().index(tokenizer.sep_token_id) + 1
    logits[0, first + start] = logits[1, first + end] = 20
    logits[:, 1] = 1000  # the question's tokens do not count
    (found,) = task.decode([{"start": logits[0], "end": logits[1]}], encoded.carry)
    assert found == {"answer": words, "score": pytest.approx(1.0), "start": 15 - len(words), "end": 15}


@pytest.mark.parametrize(("cls", "threshold", "no_answer"), [(5, 0.0, True), (-5, 0.0, False), (5, 0.99, False)])
def test_no_answer_must_beat_the_spans(
    model: Any, tokenizer: Any, cls: float, threshold: float, no_answer: bool
) -> None:
    options = {"no_answer": True, "no_answer_threshold": threshold, "top_k": 2}
    task = make_task(QuestionAnswering, model, tokenizer, **options)
    (encoded,) = task.encode([{"question": "Where?", "context": "Lives in Berlin."}])
    logits = np.zeros(encoded.items[0].num_tokens, dtype=np.float32)
    logits[0], logits[5] = cls, 1
    found = task.decode([{"start": logits, "end": logits}], encoded.carry)
    assert (found[0]["answer"] == "") == no_answer
    assert "" not in {
        each["answer"] for each in answer(make_task(QuestionAnswering, model, tokenizer), model, [BERLIN])[0]
    }


def test_a_long_question_is_refused_where_the_context_does_not_fit(model: Any, tokenizer: Any) -> None:
    task = make_task(QuestionAnswering, model, tokenizer, max_length=64, doc_stride=20)
    long = "why " * 50
    most = "why " * (64 - 3 - 20 - 1)
    short, wide = "Because.", "because of that " * 30
    rows = [(long, short), (long, wide), (most, wide), (most + "why", wide), ("é" * 30, wide)]
    found = task.encode([{"question": question, "context": context} for question, context in rows])
    assert [isinstance(each, RowError) for each in found] == [False, True, False, True, False]
    assert isinstance(found[1], RowError)
    assert found[1].type == "QuestionTooLong"
    assert "at most 40" in found[1].message


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"context": "c"}, "MissingColumn"),
        ({"question": "q", "context": None}, "NullText"),
        ({"question": "", "context": "c"}, "EmptyText"),
        ({"question": "q", "context": " "}, "EmptyText"),
        ({"question": ["q"], "context": "c"}, "WrongType"),
        ({"question": "q", "context": "a\ud800"}, "InvalidText"),
    ],
)
def test_bad_rows_stand_alone(model: Any, tokenizer: Any, row: dict[str, Any], error: str) -> None:
    good, bad, last = make_task(QuestionAnswering, model, tokenizer).encode([BERLIN, row, BERLIN])
    assert isinstance(bad, RowError)
    assert bad.type == error
    assert not isinstance(good, RowError)
    assert not isinstance(last, RowError)


def test_a_context_without_tokens_has_no_answers(model: Any, tokenizer: Any) -> None:
    row = {"question": "Who?", "context": "\u200b\u200d"}
    assert answer(make_task(QuestionAnswering, model, tokenizer), model, [row]) == [[]]
    (found,) = answer(make_task(QuestionAnswering, model, tokenizer, no_answer=True), model, [row])
    assert found == [{"answer": "", "score": pytest.approx(1.0), "start": 0, "end": 0}]


def test_windows_shrink_with_the_model(model: Any, tokenizer: Any) -> None:
    info = {"max_length": 64}
    (encoded,) = make_task(QuestionAnswering, model, tokenizer, info=info).encode(
        [{"question": "Why?", "context": "so " * 150}]
    )
    assert max(item.num_tokens for item in encoded.items) == 64
    with pytest.raises(SpecError, match="less than 61"):
        make_task(QuestionAnswering, model, tokenizer, info=info, doc_stride=61)


def test_options_of_a_request_replace_those_of_the_job(model: Any, tokenizer: Any, squad: list[dict[str, Any]]) -> None:
    task = make_task(QuestionAnswering, model, tokenizer)
    other = make_task(QuestionAnswering, model, tokenizer, top_k=3, max_length=100, doc_stride=10)
    assert answer(task, model, squad[:2], other.options) == answer(other, model, squad[:2])


def test_a_tokenizer_without_offsets_is_refused(model: Any) -> None:
    class Slow:
        model_input_names = ("input_ids",)

        def num_special_tokens_to_add(self, pair: bool) -> int:
            return 3

    with pytest.raises(SpecError, match="fast tokenizer"):
        make_task(QuestionAnswering, model, Slow())


def test_results_fit_their_type(model: Any, tokenizer: Any) -> None:
    task = make_task(QuestionAnswering, model, tokenizer, top_k=3)
    results = answer(task, model, [BERLIN])
    assert pa.array(results, task.result_type()).to_pylist()[0][0]["answer"] == results[0][0]["answer"]
    assert task.summarize(results[0]).score == results[0][0]["score"]
    assert task.summarize([]).score is None
    assert info_of(model).labels


def test_metrics_are_squads(model: Any, tokenizer: Any, squad: list[dict[str, Any]]) -> None:
    task = make_task(QuestionAnswering, model, tokenizer)
    results = [[{"answer": row["answers"]["text"][0], "score": 1.0, "start": 0, "end": 1}] for row in squad]
    assert task.metrics(results, [row["answers"] for row in squad]) == {"exact_match": 100.0, "f1": 100.0}
    assert task.metrics(results, [row["answers"]["text"] for row in squad]) == {"exact_match": 100.0, "f1": 100.0}
    assert task.metrics(results[:1], ["nothing of it"])["exact_match"] == 0
    assert task.metrics([[]], [[]]) == {"exact_match": 100.0, "f1": 100.0}


@pytest.mark.parametrize("reference", [None, 3, [1], {"answer": "x"}, {"text": None}])
def test_wrong_references_are_named(model: Any, tokenizer: Any, reference: Any) -> None:
    with pytest.raises(DataError, match="reference 0"):
        make_task(QuestionAnswering, model, tokenizer).metrics([[]], [reference])


@settings(max_examples=200, deadline=None)
@given(
    starts=st.lists(st.floats(0, 1), max_size=12), length=st.integers(1, 14), top_k=st.integers(1, 200), data=st.data()
)
def test_best_spans_are_the_best_of_all_spans(starts: list[float], length: int, top_k: int, data: Any) -> None:
    ends = data.draw(st.lists(st.floats(0, 1), min_size=len(starts), max_size=len(starts)))
    every = [
        (starts[first] * ends[last], first, last)
        for first in range(len(starts))
        for last in range(first, min(len(starts), first + length))
    ]
    found = best_spans(np.array(starts), np.array(ends), length, top_k)
    assert all(score == starts[first] * ends[last] for first, last, score in found)
    assert {(first, last) for first, last, _ in found} <= {(first, last) for _, first, last in every}
    positive = [score for score, *_ in sorted(every, reverse=True) if score > 0][:top_k]
    assert [score for *_, score in found if score > 0] == positive


def test_windows_lose_nothing_and_max_chars_does(model: Any, tokenizer: Any) -> None:
    row = {"question": "Where?", "context": "word " * 400}
    task = make_task(QuestionAnswering, model, tokenizer, max_length=64)
    assert len(task.encode([row])[0].items) > 1
    assert truncated(task, row) == [False]
    short = make_task(QuestionAnswering, model, tokenizer, max_chars=20, over_max_chars="truncate")
    rows = [{"question": "x" * first, "context": "y" * second} for first, second in ((20, 20), (21, 20), (20, 21))]
    assert truncated(short, *rows) == [False, True, True]
