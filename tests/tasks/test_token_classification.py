"""token-classification against Transformers' own pipeline, and what it does beyond it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import GPT2Config, GPT2Tokenizer, pipeline

from hfray.errors import DataError, RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor
from hfray.tasks.token_classification import TokenClassification
from tests.tasks.support import TEXTS, answer, bert_config, bert_tokenizer, make_task, run_items, tiny_model, truncated

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
AGGREGATIONS = ("none", "simple", "first", "average", "max")
NAMES = (
    "Angela Merkel met Barack Obama in Mecklenburg-Vorpommern, near Schwerin.",
    "unbelievably snowboarding electroencephalographers of Llanfairpwllgwyngyll",
    "[SEP] and [MASK] are literal here",
)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model(TokenClassification.auto_model, bert_config(labels=LABELS))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return bert_tokenizer()


def assert_same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert [(each["entity"], each["word"], each["start"], each["end"]) for each in found] == [
        (each.get("entity_group", each.get("entity")), each["word"], each["start"], each["end"]) for each in wanted
    ]
    assert [each["score"] for each in found] == pytest.approx([float(each["score"]) for each in wanted], abs=1e-5)


@pytest.mark.parametrize("ignore", [("O",), (), ("LOC", "B-LOC")], ids=["outside", "nothing", "places"])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_texts_equal_the_pipeline(model: Any, tokenizer: Any, aggregation: str, ignore: tuple[str, ...]) -> None:
    task = make_task(TokenClassification, model, tokenizer, aggregation=aggregation, ignore_labels=ignore)
    own = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=aggregation)
    texts = [text for text in (*TEXTS, *NAMES) if text]
    for text, found in zip(texts, answer(task, model, [{"text": text} for text in texts]), strict=True):
        assert_same(found, own(text, ignore_labels=list(ignore)))
        assert all(each["word_index"] is None and each["word_tags"] is None for each in found)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_lists_of_words_equal_the_pipeline(model: Any, tokenizer: Any, aggregation: str) -> None:
    task = make_task(TokenClassification, model, tokenizer, aggregation=aggregation)
    own = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=aggregation)
    rows = [["Angela", "Merkel's", "U.S.", "visit", "🎉"], ["electroencephalographers"], ["a", "", "b", "今天"] * 30]
    found = answer(task, model, [{"text": words} for words in rows])
    for words, result in zip(rows, found, strict=True):
        assert_same(result, own(words, is_split_into_words=True)[0])


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_byte_level_tokens_equal_the_pipeline(shared_data: Path, aggregation: str) -> None:
    folder = shared_data / "tokenizers" / "gpt2"
    gpt2 = GPT2Tokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), add_prefix_space=True, model_max_length=64
    )
    labels = dict(enumerate(LABELS))
    config = GPT2Config(
        n_embd=64, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3, id2label=labels, num_labels=len(labels)
    )
    model = tiny_model(TokenClassification.auto_model, config)
    task = make_task(TokenClassification, model, gpt2, aggregation=aggregation)
    own = pipeline("token-classification", model=model, tokenizer=gpt2, aggregation_strategy=aggregation)
    texts = [text for text in (*TEXTS, *NAMES) if text]
    found = answer(task, model, [{"text": text} for text in texts])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Tokenizer does not support real words")
        for text, result in zip(texts, found, strict=True):
            assert_same(result, own(text))


def test_sentences_without_words_have_no_entities(model: Any, tokenizer: Any) -> None:
    task = make_task(TokenClassification, model, tokenizer)
    rows: list[dict[str, Any]] = [{"text": []}, {"text": [""]}]
    assert all(each.items == () for each in task.encode(rows))
    assert answer(task, model, rows) == [[], []]


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({}, "MissingColumn"),
        ({"text": None}, "NullText"),
        ({"text": " \n"}, "EmptyText"),
        ({"text": 7}, "WrongType"),
        ({"text": b"Berlin"}, "WrongType"),
        ({"text": ["a", None]}, "NullText"),
        ({"text": ["a", 3]}, "WrongType"),
        ({"text": ["a", "\ud800"]}, "InvalidText"),
        ({"text": "a\x00b"}, "InvalidText"),
        ({"text": "x" * 51}, "TextTooLong"),
        ({"text": ["x" * 25, "y" * 25]}, "TextTooLong"),
    ],
)
def test_bad_rows_stand_alone(model: Any, tokenizer: Any, row: dict[str, Any], error: str) -> None:
    task = make_task(TokenClassification, model, tokenizer, max_chars=50)
    good, bad, words = task.encode([{"text": "Berlin"}, row, {"text": ["Berlin"]}])
    assert isinstance(bad, RowError)
    assert bad.type == error
    assert not isinstance(good, RowError)
    assert not isinstance(words, RowError)


def test_too_many_words_are_cut_at_a_word(model: Any, tokenizer: Any) -> None:
    task = make_task(TokenClassification, model, tokenizer, max_chars=50, over_max_chars="truncate")
    (encoded,) = task.encode([{"text": ["x" * 24, "y" * 25, "z"]}])
    assert encoded.carry.text == "x" * 24 + " " + "y" * 25


def test_short_texts_do_not_depend_on_the_stride(model: Any, tokenizer: Any) -> None:
    texts = [{"text": text} for text in NAMES]
    plain = answer(make_task(TokenClassification, model, tokenizer), model, texts)
    assert answer(make_task(TokenClassification, model, tokenizer, stride=20), model, texts) == plain


@pytest.mark.parametrize("stride", [1, 20, 61])
@pytest.mark.parametrize("num_words", [62, 63, 200])
def test_each_token_is_decided_by_the_window_that_shows_most_around_it(
    model: Any, tokenizer: Any, stride: int, num_words: int
) -> None:
    random = np.random.default_rng(num_words)
    vocabulary = ["river", "garden", "berlin", "snow", "market", "seven"]
    words = [vocabulary[i] for i in random.integers(len(vocabulary), size=num_words)]
    task = make_task(TokenClassification, model, tokenizer, aggregation="none", ignore_labels=(), stride=stride)
    (encoded,) = task.encode([{"text": words}])
    outputs = run_items(model, encoded.items)
    found = task.decode(outputs, encoded.carry)
    assert [entity["word"] for entity in found] == words
    assert [entity["word_index"] for entity in found] == [[index] for index in range(num_words)]

    size, step = 62, 62 - stride  # 64 tokens without [CLS] and [SEP]
    for position, entity in enumerate(found):
        distances = []
        for window, item in enumerate(encoded.items):
            begin, end = window * step, window * step + len(item.inputs["input_ids"]) - 2
            left = position - begin if window else size
            right = end - 1 - position if window < len(encoded.items) - 1 else size
            distances.append(min(left, right))
        window = int(np.argmax(distances))
        logits = outputs[window]["logits"][1 + position - window * step]
        assert entity["entity"] == LABELS[logits.argmax()]
        assert entity["score"] == pytest.approx(np.exp(logits - np.logaddexp.reduce(logits)).max(), abs=1e-6)


def test_without_stride_a_long_text_is_cut(model: Any, tokenizer: Any) -> None:
    (encoded,) = make_task(TokenClassification, model, tokenizer).encode([{"text": "berlin " * 200}])
    assert [item.num_tokens for item in encoded.items] == [64]


def test_word_tags_are_those_of_first_tokens(model: Any, tokenizer: Any) -> None:
    task = make_task(TokenClassification, model, tokenizer, ignore_labels=())
    words = ["electroencephalographers", "met", "snowboarding", "Merkel"]
    (encoded,) = task.encode([{"text": words}])
    (output,) = run_items(model, encoded.items)
    result = task.decode([output], encoded.carry)
    found = {index: tag for each in result for index, tag in zip(each["word_index"], each["word_tags"], strict=True)}
    heads = [1 + int(np.flatnonzero(encoded.carry.word_ids == index)[0]) for index in range(4)]
    assert found == {index: LABELS[output["logits"][head].argmax()] for index, head in enumerate(heads)}


def test_options_of_a_request_replace_those_of_the_job(model: Any, tokenizer: Any) -> None:
    task = make_task(TokenClassification, model, tokenizer)
    other = make_task(TokenClassification, model, tokenizer, aggregation="none", max_length=10)
    rows = [{"text": NAMES[0]}]
    assert answer(task, model, rows, other.options) == answer(other, model, rows)
    assert answer(task, model, rows) != answer(other, model, rows)


def test_results_fit_their_type(model: Any, tokenizer: Any) -> None:
    rows: list[dict[str, Any]] = [{"text": NAMES[0]}, {"text": NAMES[1].split()}, {"text": []}]
    types = set()
    for aggregation in AGGREGATIONS:
        task = make_task(TokenClassification, model, tokenizer, aggregation=aggregation)
        results = answer(task, model, rows)
        types.add(pa.array(results, task.result_type()).type)
        task.summarize(results[0])
    assert len(types) == 1
    assert task.summarize([]).label == "(none)"


def test_metrics_count_entities_and_words(shared_data: Path, model: Any, tokenizer: Any) -> None:
    sentences = list(_conll(shared_data / "wnut17" / "test.conll", 40))
    rows = [{"text": words} for words, _ in sentences]
    task = make_task(TokenClassification, model, tokenizer)
    results = answer(task, model, rows)
    first_tags = []
    for result, (words, _) in zip(results, sentences, strict=True):
        tags = ["O"] * len(words)
        for entity in result:
            for index, tag in zip(entity["word_index"], entity["word_tags"], strict=True):
                tags[index] = tag
        first_tags.append(tags)
    perfect = task.metrics(results, first_tags)
    assert perfect == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "accuracy": 1.0}
    as_indexes = [[LABELS.index(tag) for tag in tags] for tags in first_tags]
    assert task.metrics(results, as_indexes) == perfect
    real = task.metrics(results, [tags for _, tags in sentences])
    flat = [
        (a, b) for tags, (_, own) in zip(first_tags, sentences, strict=True) for a, b in zip(tags, own, strict=True)
    ]
    assert real["accuracy"] == pytest.approx(np.mean([a == b for a, b in flat]))
    assert 0 <= real["f1"] < 0.5


def test_tags_without_a_scheme_have_an_accuracy_only(tokenizer: Any) -> None:
    model = tiny_model(TokenClassification.auto_model, bert_config(labels=("NOUN", "VERB", "PUNCT")))
    task = make_task(TokenClassification, model, tokenizer)
    words = ["dogs", "bark", "."]
    results = answer(task, model, [{"text": words}])
    tags = [tag for entity in results[0] for tag in entity["word_tags"]]
    assert len(tags) == 3
    assert task.metrics(results, [tags]) == {"accuracy": 1.0}


@pytest.mark.parametrize("reference", [None, "O O", ["O"], [9, 9, 9], [None, None, None]])
def test_wrong_references_are_named(model: Any, tokenizer: Any, reference: Any) -> None:
    task = make_task(TokenClassification, model, tokenizer, ignore_labels=())
    results = answer(task, model, [{"text": ["a", "b", "c"]}])
    with pytest.raises(DataError, match="reference"):
        task.metrics(results, [reference])


def test_plain_texts_cannot_be_compared(model: Any, tokenizer: Any) -> None:
    task = make_task(TokenClassification, model, tokenizer, ignore_labels=())
    with pytest.raises(DataError, match="list of words"):
        task.metrics(answer(task, model, [{"text": "a b"}]), [["O", "O"]])


def test_a_stride_without_a_step_is_refused(model: Any, tokenizer: Any) -> None:
    with pytest.raises(SpecError, match="less than 62"):
        make_task(TokenClassification, model, tokenizer, stride=62)


def test_a_tokenizer_without_offsets_is_refused(model: Any) -> None:
    class Slow:
        model_input_names = ("input_ids",)

    options = TokenClassification.Options()
    with pytest.raises(SpecError, match="fast tokenizer"):
        TokenClassification(options, Processor(tokenizer=Slow()), ModelInfo("tiny", "bert", labels=LABELS))


def _conll(path: Path, count: int) -> Iterator[tuple[list[str], list[str]]]:
    blocks = path.read_text(encoding="utf-8").split("\n\n")[:count]
    for block in blocks:
        pairs = [line.split("\t") for line in block.splitlines() if "\t" in line]
        if pairs:
            yield [word for word, _ in pairs], [tag.strip() for _, tag in pairs]


def test_rows_that_lose_text_are_known(model: Any, tokenizer: Any) -> None:
    rows: list[dict[str, Any]] = [{"text": text} for n in (62, 63) for text in ("word " * n, ["word"] * n)]
    assert truncated(make_task(TokenClassification, model, tokenizer), *rows) == [False, False, True, True]
    assert not any(truncated(make_task(TokenClassification, model, tokenizer, stride=8), *rows))
    task = make_task(TokenClassification, model, tokenizer, stride=8, max_chars=20, over_max_chars="truncate")
    fitting = [{"text": "x" * 20}, {"text": ["x" * 10, "y" * 9]}]
    cut = [{"text": "x" * 21}, {"text": ["x" * 10, "y" * 10]}, {"text": ["x" * 21]}]
    assert truncated(task, *fitting, *cut) == [False, False, True, True, True]
