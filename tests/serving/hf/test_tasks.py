"""Real tasks between `parse` and `render`: the rows are theirs, so are the options, and their results are told."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest
from PIL import Image

from hfray.errors import RowError
from hfray.serving.hf.call import Call, Limits
from hfray.serving.hf.protocol import parse, render
from hfray.serving.hf.schemas import output_schema
from hfray.tasks import TASKS
from hfray.tasks.base import ModelInfo, Processor
from hfray.tasks.text_generation import TextGeneration
from tests.serving.hf.support import is_published, violations
from tests.serving.hf.test_schemas import LISTED
from tests.tasks import generation_support
from tests.tasks.generation_support import tokenizer_of
from tests.tasks.support import answer, bert_config, make_task, tiny_model
from tests.tasks.test_image_classification import make, vit
from tests.tasks.test_summarization import t5_model
from tests.tasks.test_text_generation import model_of

LABELS: Mapping[str, tuple[str, ...]] = {
    "text-classification": ("good", "bad", "fair"),
    "token-classification": ("O", "B-PER", "I-PER"),
    "zero-shot-classification": ("contradiction", "neutral", "entailment"),
    "text-ranking": ("score",),
    "question-answering": ("LABEL_0", "LABEL_1"),
}
BODIES: Mapping[str, list[dict[str, Any]]] = {
    "text-classification": [
        {"inputs": "A fine day."},
        {"inputs": ["A", {"text": "B", "text_pair": "C"}], "parameters": {"top_k": 3, "function_to_apply": "sigmoid"}},
    ],
    "token-classification": [
        {"inputs": "Ada was here.", "parameters": {"ignore_labels": []}},
        {"inputs": ["Ada", "was"], "parameters": {"aggregation_strategy": "none", "ignore_labels": [], "stride": 8}},
    ],
    "question-answering": [
        {"inputs": {"question": "Who?", "context": "Ada was here. " * 60}},
        {
            "inputs": [{"question": "Who?", "context": "Ada was here."}] * 2,
            "parameters": {"top_k": 3, "handle_impossible_answer": True, "max_seq_len": 64, "doc_stride": 16},
        },
    ],
    "zero-shot-classification": [
        {"inputs": "A train.", "parameters": {"candidate_labels": ["travel", "food", "sport"]}},
        {
            "inputs": ["A", "B"],
            "parameters": {"candidate_labels": "x, y", "multi_label": True, "hypothesis_template": "On {}."},
        },
    ],
    "fill-mask": [
        {"inputs": "a [MASK] b"},
        {"inputs": ["a [MASK] [MASK]", "[MASK]"], "parameters": {"top_k": 2, "targets": ["paris", "rome"]}},
    ],
    "feature-extraction": [{"inputs": "a"}, {"inputs": ["a", "b"], "normalize": True, "dimensions": 64}],
    "sentence-similarity": [{"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}}],
    "text-ranking": [{"query": "a", "texts": ["b", "c"]}, {"query": "a", "texts": ["b"], "raw_scores": True}],
}


def told(call: Call, task: Any, results: list[Any]) -> Any:
    assert not [each for each in results if isinstance(each, RowError)]
    own = task.options.model_dump()
    found = render(call, results, own)
    jsonschema.Draft202012Validator(output_schema(call.task)).validate(found)
    return found


def options_of(task: Any, call: Call) -> Any:
    return type(task.options).model_validate({**task.options.model_dump(), **call.changes})


@pytest.mark.parametrize(("name", "body"), [(name, body) for name, bodies in BODIES.items() for body in bodies])
def test_tasks_of_encoders(name: str, body: dict[str, Any]) -> None:
    kind = TASKS[name]
    model = tiny_model(kind.auto_model, bert_config(labels=LABELS.get(name, ())))
    task = make_task(kind, model)
    call = parse(name, body, Limits(), task.options.model_dump())
    found = told(call, task, answer(task, model, call.rows, options_of(task, call)))
    if call.many:
        assert len(found) == len(call.rows)
    elif is_published(name):
        if name in LISTED:
            (found,) = found
        assert violations([found] if name == "question-answering" else found, name, "output") == []


@pytest.mark.parametrize("many", [False, True])
def test_images(many: bool) -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 24), (9, 99, 199)).save(file, "JPEG")
    text = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    body = {"inputs": [text, text] if many else text, "parameters": {"top_k": 3, "function_to_apply": "sigmoid"}}
    model = vit()
    task = make(model)
    call = parse("image-classification", body, Limits(), task.options.model_dump())
    found = told(call, task, answer(task, model, call.rows, options_of(task, call)))
    assert len(found) == (2 if many else 3)


PARAMETERS = [
    {"max_new_tokens": 4},
    {"max_new_tokens": 4, "details": True, "top_n_tokens": 2, "seed": 3},
    {"max_new_tokens": 4, "num_return_sequences": 2, "temperature": 0.9, "top_p": 0.9, "top_k": 9},
    {"max_new_tokens": 4, "return_full_text": True, "truncate": 5, "stop": ["\n"], "details": True},
]


@pytest.mark.slow
@pytest.mark.parametrize("parameters", PARAMETERS)
def test_a_language_model(parameters: dict[str, Any]) -> None:
    info = ModelInfo(name="tiny", model_type="gpt2", max_length=256)
    task = TextGeneration(TextGeneration.Options(), Processor(tokenizer=tokenizer_of("gpt2")), info)
    call = parse("text-generation", {"inputs": "Once upon a time there was", "parameters": parameters}, Limits())
    results = generation_support.answer(task, model_of("gpt2"), call.rows, options_of(task, call))
    found = told(call, task, results)
    assert len(found) == parameters.get("num_return_sequences", 1)
    assert violations(found[0], "text-generation", "output") == []
    assert found[0]["generated_text"].startswith("Once") == parameters.get("return_full_text", False)
    assert ("details" in found[0]) == parameters.get("details", False)


@pytest.mark.parametrize("inputs", ["Once upon a time", ["Once upon a time", "there was"]])
def test_perplexity(inputs: str | list[str]) -> None:
    kind = TASKS["perplexity"]
    model = model_of("gpt2")
    task = make_task(kind, model, tokenizer_of("gpt2"))
    body = {"inputs": inputs, "parameters": {"append_eos": True, "stride": 2}}
    call = parse("perplexity", body, Limits(), task.options.model_dump())
    found = told(call, task, answer(task, model, call.rows, options_of(task, call)))
    assert len(found if call.many else [found]) == len(call.rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["summarization", "translation", "text2text-generation"])
def test_encoder_decoders(name: str) -> None:
    info = ModelInfo(name="tiny", model_type="t5", is_encoder_decoder=True, generation={"eos_token_id": 1})
    kind = TASKS[name]
    own = {"prefix": "say: "} if name == "translation" else {}
    task = kind(kind.Options(name=name, **own), Processor(tokenizer=tokenizer_of("t5-small")), info)
    parameters: dict[str, Any] = {"min_length": 3, "max_length": 6, "do_sample": False, "num_beams": 2}
    if name == "translation":
        parameters |= {"src_lang": "en", "tgt_lang": "de"}
    call = parse(name, {"inputs": ["One.", "Two."], "parameters": parameters}, Limits(), task.options.model_dump())
    found = told(call, task, generation_support.answer(task, t5_model(), call.rows, options_of(task, call)))
    assert len(found) == 2
    assert name not in LISTED or violations(found[0], name, "output") == []
