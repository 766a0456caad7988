from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoModel, AutoTokenizer, pipeline

from hfray.errors import RowError, SpecError
from hfray.tasks.feature_extraction import FeatureExtraction
from tests.tasks.support import (
    TEXTS,
    answer,
    bert_config,
    bert_tokenizer,
    make_task,
    tiny_model,
    trained_minilm,
    truncated,
)

PROMPTS = {"query": "Represent this question: ", "passage": "text: "}
ROWS = [{"text": text} for text in TEXTS]


@pytest.fixture(scope="module")
def model():
    return tiny_model(FeatureExtraction.auto_model, bert_config())


def sentence_transformer(folder, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # imports and old module names of the other side
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(folder), device="cpu", local_files_only=True, **kwargs)


def built(model, folder, mode, *, include_prompt=True, normalize=False):
    """sentence-transformers over the same weights, put together by its own modules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

        model.save_pretrained(folder)
        bert_tokenizer().save_pretrained(folder)
        modules = [Transformer(str(folder)), Pooling(64, mode, include_prompt=include_prompt)]
        return SentenceTransformer(modules=[*modules, *([Normalize()] if normalize else [])], device="cpu")


@pytest.mark.slow
def test_the_trained_model_gives_sentence_transformers_vectors():
    folder = trained_minilm()
    trained = AutoModel.from_pretrained(folder).eval()
    task = make_task(
        FeatureExtraction,
        trained,
        AutoTokenizer.from_pretrained(folder),
        info={"max_length": 256, "pooling": "mean", "normalize": True},
    )
    expected = sentence_transformer(folder).encode(list(TEXTS))
    np.testing.assert_allclose(answer(task, trained, ROWS), expected, atol=1e-5)


@pytest.mark.parametrize(("mode", "theirs"), [("mean", "mean"), ("cls", "cls"), ("max", "max"), ("last", "lasttoken")])
def test_pooling_modes(model, tmp_path, mode, theirs):
    expected = built(model, tmp_path, theirs).encode(list(TEXTS))
    np.testing.assert_allclose(
        answer(make_task(FeatureExtraction, model, pooling=mode), model, ROWS), expected, atol=1e-5
    )
    own = make_task(FeatureExtraction, model, info={"pooling": mode})
    np.testing.assert_allclose(answer(own, model, ROWS), expected, atol=1e-5)


def test_a_plain_model_gets_the_unnormalised_mean(model):
    plain = answer(make_task(FeatureExtraction, model), model, ROWS)
    assert plain == answer(make_task(FeatureExtraction, model, pooling="mean", normalize=False), model, ROWS)
    unit = answer(make_task(FeatureExtraction, model, normalize=True), model, ROWS)
    np.testing.assert_allclose(unit, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6)
    off = make_task(FeatureExtraction, model, normalize=False, info={"normalize": True})
    assert answer(off, model, ROWS) == plain


@pytest.mark.parametrize("info", [{}, {"pooling": "mean", "normalize": True}])
def test_no_pooling_gives_the_pipelines_token_vectors(model, info):
    theirs = pipeline("feature-extraction", model=model, tokenizer=bert_tokenizer())
    task = make_task(FeatureExtraction, model, info=info, pooling="none")
    results = answer(task, model, ROWS)
    for text, result in zip(TEXTS, results, strict=True):
        np.testing.assert_allclose(result, theirs(text, truncation=True)[0], atol=1e-5)
    assert pa.array(results, task.result_type()).to_pylist() == results


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("mode", ["mean", "max", "cls"])
def test_stored_prompts(model, tmp_path, include_prompt, mode):
    info = {"prompts": PROMPTS, "include_prompt": include_prompt, "pooling": mode, "normalize": True}
    theirs = built(model, tmp_path, mode, include_prompt=include_prompt, normalize=True)
    task = make_task(FeatureExtraction, model, info=info, prompt_name="query")
    np.testing.assert_allclose(
        answer(task, model, ROWS), theirs.encode(list(TEXTS), prompt=PROMPTS["query"]), atol=1e-5
    )


def test_which_prompt_is_used(model):
    def vectors(info=None, **options):
        return answer(make_task(FeatureExtraction, model, info=info, **options), model, [{"text": "a card"}])

    info = {"prompts": PROMPTS, "default_prompt": PROMPTS["passage"]}
    plain, passage = vectors(), vectors(prefix=PROMPTS["passage"])
    assert passage != plain
    assert vectors({"prompts": PROMPTS}) == plain
    assert vectors(info) == passage
    assert vectors(info, prompt_name="passage") == passage
    assert vectors(info, prompt_name="") == plain
    assert vectors(info, prefix=PROMPTS["query"]) == vectors(info, prompt_name="query") != passage


def test_an_unknown_prompt_is_refused_with_the_known_names(model):
    with pytest.raises(SpecError) as caught:
        make_task(FeatureExtraction, model, info={"prompts": PROMPTS}, prompt_name="qery")
    assert "did you mean 'query'?" in str(caught.value)
    assert "'passage'" in str(caught.value)
    with pytest.raises(SpecError, match="stored prompts: none"):
        make_task(FeatureExtraction, model, prompt_name="query")
    with pytest.raises(SpecError, match="keep one"):
        make_task(FeatureExtraction, model, info={"prompts": PROMPTS}, prompt_name="query", prefix="x")


def test_bad_rows_requests_and_the_arrow_type(model):
    task = make_task(FeatureExtraction, model)
    results = answer(task, model, [{"text": "a"}, {"text": b"a"}, {}, {"text": "a"}])
    assert [each.type for each in results if isinstance(each, RowError)] == ["WrongType", "MissingColumn"]
    assert results[0] == results[3]
    assert pa.array([results[0]], task.result_type()).to_pylist() == [results[0]]
    (cls,) = answer(task, model, [{"text": "a"}], FeatureExtraction.Options(pooling="cls"))
    assert cls == answer(make_task(FeatureExtraction, model, pooling="cls"), model, [{"text": "a"}])[0]


def test_rows_that_lose_text_are_known(model):
    rows = [{"text": "word " * num} for num in (60, 61, 62, 63)]
    assert truncated(make_task(FeatureExtraction, model), *rows) == [False, False, False, True]
    prefixed = make_task(FeatureExtraction, model, prefix="query: ")  # two tokens
    assert truncated(prefixed, *rows) == [False, True, True, True]
    short = make_task(FeatureExtraction, model, prefix="query: ", max_chars=20, over_max_chars="truncate")
    assert truncated(short, {"text": "x" * 20}, {"text": "x" * 21}) == [False, True]
