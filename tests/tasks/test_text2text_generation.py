from __future__ import annotations

from typing import Any

import pytest
import torch

from hfray.errors import DataError, RowError
from hfray.tasks.base import ModelInfo, Processor
from hfray.tasks.text2text_generation import Text2TextGeneration
from tests.tasks.generation_support import answer, contexts, tokenizer_of
from tests.tasks.support import truncated
from tests.tasks.test_summarization import t5_model


def make(*, generation: dict[str, Any] | None = None, **options: Any) -> Text2TextGeneration:
    info = ModelInfo(name="tiny", model_type="t5", is_encoder_decoder=True, generation=generation or {})
    return Text2TextGeneration(
        Text2TextGeneration.Options(**options), Processor(tokenizer=tokenizer_of("t5-small")), info
    )


def test_greedy_text_is_that_of_generate() -> None:
    model, tokenizer = t5_model(), tokenizer_of("t5-small")
    texts = ["question: what? context: " + contexts("en")[0][:200], "今天 🙂 naïve", "ok"]
    wanted = []
    for text in texts:
        ids = torch.tensor([tokenizer(text).input_ids])
        tokens = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, do_sample=False)
        wanted.append(tokenizer.decode(tokens[0], skip_special_tokens=True, clean_up_tokenization_spaces=False))
    assert answer(make(max_new_tokens=9), model, [{"text": text} for text in texts]) == wanted


def test_the_prefix() -> None:
    def text_of(task: Text2TextGeneration) -> str:
        (encoded,) = task.encode([{"text": "Hello"}])
        assert not isinstance(encoded, RowError)
        return str(tokenizer_of("t5-small").decode(encoded.items[0].inputs["input_ids"]))

    assert text_of(make(prefix="cola sentence: ")) == "cola sentence: Hello</s>"
    assert text_of(make(generation={"prefix": "own: "})) == "own: Hello</s>"
    assert text_of(make(generation={"prefix": "own: "}, prefix="")) == "Hello</s>"


def test_a_row_is_worth_the_same_in_any_company() -> None:
    task, model = make(max_new_tokens=6, temperature=1.0), t5_model()
    rows = [{"text": text} for text in ("one", "two three four", contexts("en")[0][:100])]
    together = answer(task, model, rows)
    assert together == [answer(task, model, [row])[0] for row in rows]


def test_metrics() -> None:
    found = make().metrics(["yes ", "the cat sat"], [["no", "yes"], "the cat lay"])
    assert found["exact_match"] == 0.5
    assert found["rougeL"] == pytest.approx((1 + 2 / 3) / 2)
    with pytest.raises(DataError, match="reference 0 is 3"):
        make().metrics(["a"], [3])


def test_rows_that_lose_text_are_known() -> None:
    text = contexts("en")[0]
    num_tokens = len(tokenizer_of("t5-small")(text).input_ids)
    assert truncated(make(max_length=num_tokens), {"text": text}) == [False]
    assert truncated(make(max_length=num_tokens - 1), {"text": text}) == [True]
