"""Every task over real HTTP: the real InferenceClient reads it, and the bytes are true to the published schemas."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
import requests
from huggingface_hub import InferenceClient
from PIL import Image

from hfray.serving.hf.forms import FORMS
from hfray.serving.hf.schemas import example_input
from hfray.tasks.images import FORMATS
from tests.serving.hf.support import is_published, violations
from tests.serving.hf.test_schemas import LISTED
from tests.serving.site import Site

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("online")]

TEXT = "ann met bob in the park"


def client(site: Site, task: str) -> InferenceClient:
    return InferenceClient(model=f"{site.url}/models/{task}")


def asked(site: Site, task: str, body: dict[str, Any]) -> Any:
    found = site.json(f"/models/{task}", body)
    assert found.status == 200, found.body
    return json.loads(found.body)


def picture(kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").resize((48, 40)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("task", FORMS)
def test_answers_are_true_to_the_published_schemas(site: Site, task: str) -> None:
    if not is_published(task):
        pytest.skip(f"no schema is published for {task}")
    body = example_input(task)
    if task == "translation":  # the example's languages are another model's
        del body["parameters"]
    found = asked(site, task, body)
    if task == "question-answering":  # one object where the schema has a list of one
        found = [found]
    assert violations(found[0] if task in LISTED else found, task, "output") == []


def test_an_answer_to_a_question(site: Site) -> None:
    found = client(site, "question-answering").question_answering(question="who met bob?", context=TEXT)
    assert not isinstance(found, list)
    assert found.answer == TEXT[found.start : found.end] != ""
    assert 0 <= found.score <= 1


def test_labels_that_the_client_names(site: Site) -> None:
    labels = ["travel", "food", "sport"]
    found = client(site, "zero-shot-classification").zero_shot_classification(TEXT, labels)
    assert {each.label for each in found} == set(labels)
    assert sum(each.score for each in found) == pytest.approx(1, abs=1e-4)
    seen = client(site, "zero-shot-image-classification").zero_shot_image_classification(picture(), labels)
    assert {each.label for each in seen} == set(labels)
    assert sum(each.score for each in seen) == pytest.approx(1, abs=1e-4)


def test_a_mask(site: Site) -> None:
    found = client(site, "fill-mask").fill_mask("a [MASK] b", top_k=3)
    assert len(found) == 3
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


def test_similar_sentences(site: Site) -> None:
    same, other = client(site, "sentence-similarity").sentence_similarity(TEXT, other_sentences=[TEXT, "zzz"])
    assert same == pytest.approx(1, abs=1e-4)
    assert other < same


def test_written_texts(site: Site) -> None:
    """What the client reads is what a plain request gets."""
    settings: Any = {"do_sample": True, "seed": 3}
    body = {"inputs": TEXT, "parameters": {"generate_parameters": settings}}
    summary = client(site, "summarization").summarization(TEXT, generate_parameters=settings).summary_text
    assert asked(site, "summarization", body)[0]["summary_text"] == summary != ""
    translation = client(site, "translation").translation(TEXT, generate_parameters=settings).translation_text
    assert asked(site, "translation", body)[0]["translation_text"] == translation != ""


@pytest.mark.parametrize("kind", FORMATS)
def test_the_bytes_of_an_image(site: Site, kind: str) -> None:
    """As a body of their own, whatever their sender calls them: InferenceClient says JSON, `requests` nothing."""
    content = picture(kind)
    found = client(site, "image-classification").image_classification(content)
    scores = {each.label: each.score for each in found}
    assert set(scores) == {"cat", "coffee", "horse"}
    assert sum(scores.values()) == pytest.approx(1, abs=1e-4)
    url = f"{site.url}/models/image-classification"
    text = base64.b64encode(content).decode()
    for plain in (
        requests.post(url, data=content, timeout=30),
        requests.post(url, data=content, headers={"content-type": f"image/{kind.lower()}"}, timeout=30),
        requests.post(url, json={"inputs": text}, timeout=30),
    ):
        assert {each["label"]: each["score"] for each in plain.json()} == pytest.approx(scores, abs=1e-5)


def test_ranks(site: Site) -> None:
    """In the order of their scores, as many as are asked for, whatever the order of the documents."""
    documents = ["a cat", "ann met bob", "so warm", TEXT]

    def ranked(given: list[str], **more: Any) -> list[tuple[str, float]]:
        body = {"model": "text-ranking", "query": "who met bob?", "documents": given, "return_documents": True, **more}
        found = site.json("/v1/rerank", body)
        assert found.status == 200, found.body
        results = json.loads(found.body)["results"]
        assert [given[each["index"]] for each in results] == [each["document"]["text"] for each in results]
        return [(each["document"]["text"], round(each["relevance_score"], 4)) for each in results]

    best = ranked(documents)
    assert len(best) == 4
    assert [score for _, score in best] == sorted((score for _, score in best), reverse=True)
    assert ranked(documents[::-1]) == best
    assert ranked(documents, top_n=2) == best[:2]
