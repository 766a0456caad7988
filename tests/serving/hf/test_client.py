"""The real InferenceClient against `parse` and `render`: its requests are read, it reads the answers."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from huggingface_hub import InferenceClient

from hfray.serving.errors import RequestError
from hfray.serving.hf.call import Call, Limits
from hfray.serving.hf.events import End, Token, stream_event
from hfray.serving.hf.forms import FORMS
from hfray.serving.hf.protocol import parse, parse_image, render

IMAGE = base64.b64decode(FORMS["image-classification"].example["inputs"])
QA = {"question": "Where did Ada live?", "context": "Ada Lovelace lived in London."}


class Client:
    """InferenceClient for an address; what it would send is answered here, its own code does the rest."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client = InferenceClient(model="http://127.0.0.1:9/models/tiny", token="none")
        self.call: Call | None = None
        monkeypatch.setattr(self.client, "_inner_post", self._post)

    def _post(self, request: Any, *, stream: bool = False) -> Any:
        if request.json is None and not request.data.lstrip().startswith(b"{"):
            call = parse_image(request.task, bytes(request.data), Limits())
        else:
            call = parse(request.task, json.loads(json.dumps(request.json or json.loads(request.data))), Limits())
        self.call = call
        if not stream:
            return json.dumps(render(call, [FORMS[call.task].result] * len(call.rows))).encode()
        assert call.stream
        events = [
            stream_event(call, 1, Token(612, " there", -0.2)),
            stream_event(call, 2, Token(373, " was", -0.1), End(" there was", "length", 4, 2)),
        ]
        return [line for event in events for line in (f"data:{json.dumps(event)}", "")]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    return Client(monkeypatch)


def changes(client: Client) -> dict[str, Any]:
    assert client.call is not None
    return client.call.changes


def test_text_classification(client: Client) -> None:
    found = client.client.text_classification("I love it", top_k=2, function_to_apply="softmax")
    assert [(each.label, each.score) for each in found] == [("positive", 0.98), ("negative", 0.02)]
    assert changes(client) == {"top_k": 2, "function": "softmax"}


def test_token_classification(client: Client) -> None:
    found = client.client.token_classification("Ada", aggregation_strategy="max", ignore_labels=["O"], stride=2)
    assert [(each.entity_group, each.word) for each in found] == [("PER", "Ada Lovelace"), ("LOC", "London")]
    assert client.client.token_classification("Ada", aggregation_strategy="none")[0].entity == "PER"


def test_question_answering(client: Client) -> None:
    found = client.client.question_answering(**QA)
    assert (found.answer, found.start, found.end) == ("London", 22, 28)
    several = client.client.question_answering(
        **QA, top_k=2, doc_stride=64, max_answer_len=9, max_seq_len=256, handle_impossible_answer=True,
        align_to_words=True,
    )  # fmt: skip
    assert [each.answer for each in several] == ["London"]


def test_zero_shot_classification(client: Client) -> None:
    found = client.client.zero_shot_classification("x", ["travel", "cooking"], multi_label=True)
    assert [each.label for each in found] == ["travel", "cooking"]
    assert changes(client) == {"multi_label": True}


def test_fill_mask(client: Client) -> None:
    (found,) = client.client.fill_mask("a [MASK]", targets=["france"], top_k=1)
    assert (found.token, found.token_str, found.sequence) == (2605, "france", "paris is the capital of france.")


def test_feature_extraction(client: Client) -> None:
    one = client.client.feature_extraction("x", normalize=True, truncate=True, truncation_direction="right")
    assert one.shape == (1, 2)
    np.testing.assert_allclose(one[0], [0.6, -0.8])
    assert client.client.feature_extraction(["x", "y"], prompt_name="query", dimensions=2).shape == (2, 2)
    assert changes(client) == {"prompt_name": "query"}
    with pytest.raises(RequestError):
        client.client.feature_extraction("x", encoding_format="base64")


def test_sentence_similarity(client: Client) -> None:
    assert client.client.sentence_similarity("x", ["y", "z"]) == [0.83, 0.12]


def test_summarization_and_translation(client: Client) -> None:
    found = client.client.summarization("x", generate_parameters={"max_new_tokens": 9}, truncation="longest_first")
    assert found.summary_text == "A short one."
    assert changes(client) == {"max_new_tokens": 9}
    assert client.client.translation("x", src_lang="en", tgt_lang="fr").translation_text == "Bonjour !"
    assert changes(client) == {"source_language": "en", "target_language": "fr"}


def test_text_generation(client: Client) -> None:
    assert client.client.text_generation("x", max_new_tokens=9, stop=["\n"], stream=False) == " there was"
    told = client.client.text_generation("x", details=True, seed=3, do_sample=True, temperature=0.5)
    assert told.details is not None
    assert (told.details.finish_reason, told.details.generated_tokens, told.details.seed) == ("length", 2, 3)
    assert [(each.id, each.text) for each in told.details.tokens] == [(612, " there"), (373, " was")]


def test_a_stream(client: Client) -> None:
    assert list(client.client.text_generation("x", stream=True)) == [" there", " was"]
    first, last = client.client.text_generation("x", stream=True, details=True)
    assert (first.generated_text, first.details) == (None, None)
    assert (last.generated_text, last.details.finish_reason, last.details.input_length) == (" there was", "length", 4)


def test_images(client: Client) -> None:
    assert [each.label for each in client.client.image_classification(IMAGE)] == ["cat", "dog"]
    assert client.call is not None
    assert client.call.rows == ({"image": IMAGE},)
    client.client.image_classification(IMAGE, top_k=2, function_to_apply="none")
    assert (client.call.rows, changes(client)) == (({"image": IMAGE},), {"top_k": 2, "function": "none"})
    labels = ["travel", "cooking"]
    found = client.client.zero_shot_image_classification(IMAGE, labels, hypothesis_template="On {}.")
    assert [each.label for each in found] == labels
    assert client.call.rows == ({"image": IMAGE, "candidate_labels": tuple(labels)},)
