"""Whether a causal language model keeps packed documents apart, proved by running it.

Transformers separates documents by position ids that start again at 0, only where no attention mask and no cache are
passed, and only in some architectures; others need an explicit mask, and some cannot be kept apart (their state runs
through). Nothing but a run of the very code tells. Knows models; not data, not training.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import torch

from hfray.errors import SpecError

Separation = Literal["position_ids", "block_mask"]
"""What keeps documents apart, in order of preference: see `packed_inputs`."""
SEPARATIONS: tuple[Separation, ...] = ("position_ids", "block_mask")

_ROWS = ((5, 7, 6), (9, 3, 6))
"""Lengths in tokens of the documents of each packed row that is run."""
_TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-5, torch.float16: 5e-3, torch.bfloat16: 5e-2}
"""How far logits may be apart, as a part of the largest."""

# The size of a tiny model, by the names that configurations have for it. Two of each: a count of 1 takes other paths.
_NUM_LAYERS, _NUM_HEADS, _HEAD_DIM, _VOCAB = 2, 4, 16, 128
_HEADS = ("num_attention_heads", "num_heads", "n_head", "n_heads", "attention_heads")
_SIZES: tuple[tuple[int, tuple[str, ...]], ...] = (
    (_NUM_LAYERS, ("num_hidden_layers", "num_layers", "n_layer", "n_layers")),
    (_NUM_HEADS, _HEADS),
    (_NUM_HEADS * _HEAD_DIM, ("hidden_size", "n_embd", "d_model", "word_embed_proj_dim")),
    (_HEAD_DIM, ("head_dim", "qk_rope_head_dim")),
    (_HEAD_DIM // 2, ("rotary_dim",)),
    (128, ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "moe_intermediate_size")),
    (_VOCAB, ("vocab_size",)),
    (4, ("num_local_experts", "num_experts", "n_routed_experts")),
    (2, ("num_experts_per_tok",)),
    (1, ("n_group", "topk_group", "first_k_dense_replace")),
)
_PER_LAYER = (
    "layer_types",
    "attention_layers",
    "block_types",
    "no_rope_layers",
    "mlp_layer_types",
    "layers_block_type",
)
"""Lists with one entry per layer."""


def packed_inputs(position_ids: torch.Tensor, separation: Separation, dtype: torch.dtype) -> dict[str, Any]:
    """What a packed batch is passed beside `input_ids` and `labels`. position_ids: int64 [batch, num_tokens], from 0 at
    each document; dtype: the model's, for the additive mask [batch, 1, num_tokens, num_tokens]."""
    inputs: dict[str, Any] = {"position_ids": position_ids, "use_cache": False}  # a cache would join the documents
    if separation == "block_mask":
        documents = (position_ids == 0).cumsum(1)
        num_tokens = position_ids.shape[1]
        causal = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=position_ids.device).tril()
        seen = (documents[:, :, None] == documents[:, None, :]) & causal
        mask = torch.zeros(seen.shape, dtype=dtype, device=position_ids.device)
        inputs["attention_mask"] = mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]
    return inputs


def packing_is_safe(model: Any, separation: Separation) -> bool:
    """Whether each packed document has the logits that it has alone, whatever stands before it.

    Two batches that differ in their first documents are run, and each document alone. A model that shows no difference
    in one long text either would pass without proving anything: it counts as unsafe.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return _separates(model, separation)
    except Exception:  # a model that does not take such inputs raises what it likes
        return False
    finally:
        model.train(was_training)


def separation_of(model: Any) -> Separation:
    """What keeps packed documents apart in a loaded model. Raises SpecError: nothing does."""
    for separation in SEPARATIONS:
        if packing_is_safe(model, separation):
            return separation
    raise SpecError(
        f"packed documents see each other in {type(model).__name__} ({model.config.model_type}): neither position ids "
        "nor a block mask keeps them apart; train it on features of mode: plain (or packing: none)"
    )


def prove_packing(config: Any, *, attention: str | None = None) -> Separation:
    """`separation_of` a tiny random model with the architecture of a configuration; needs no weights.

    attention: the implementation that training will use ("sdpa", "eager"); None is the model's default.

    Raises SpecError: nothing separates, or no tiny model can be made of it (a loaded one can still be proved).
    """
    from transformers import AutoModelForCausalLM

    try:
        tiny = tiny_config(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(tiny, attn_implementation=attention, dtype=torch.float32)
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.data.normal_(std=0.2)  # at the usual 0.02 little of a leak arrives at the logits
            model(input_ids=torch.ones(1, 3, dtype=torch.long))
    except Exception as error:  # each architecture has conditions of its own on its sizes
        raise SpecError(
            f"no small model of the architecture {config.model_type} can be made to prove that packed documents stay "
            f"apart ({' '.join(str(error).split())[:200]}); use mode: plain (or packing: none)"
        ) from error
    return separation_of(model)


def tiny_config(config: Any) -> Any:
    """The same architecture in two narrow layers: one of each kind where a model has several."""
    tiny = copy.deepcopy(config.get_text_config(decoder=True))
    num_heads = next((value for name in _HEADS if isinstance(value := getattr(tiny, name, None), int)), 0)
    for size, names in _SIZES:
        _shrink(tiny, names, size)
    for name in ("num_key_value_heads", "num_kv_heads"):
        if (heads := getattr(tiny, name, None)) is not None:
            _set(tiny, name, min(heads, _NUM_HEADS // 2 if heads < num_heads else _NUM_HEADS))
    for name in _PER_LAYER:
        if isinstance(kinds := getattr(tiny, name, None), Sequence) and len(kinds) >= _NUM_LAYERS:
            distinct = [*dict.fromkeys(kinds), *kinds]
            _set(tiny, name, list(distinct[:_NUM_LAYERS]) if len({*kinds}) > 1 else list(kinds[:_NUM_LAYERS]))
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if getattr(tiny, name, None) is not None:
            _set(tiny, name, 0)
    return tiny


def _shrink(config: Any, names: Sequence[str], size: int) -> None:
    for name in names:
        if isinstance(getattr(config, name, None), int):
            _set(config, name, size)


def _set(config: Any, name: str, value: Any) -> None:
    with suppress(AttributeError):  # some configurations derive it from the others
        setattr(config, name, value)


def _separates(model: Any, separation: Separation) -> bool:
    rng = torch.Generator().manual_seed(0)
    vocab = model.get_input_embeddings().num_embeddings
    shape = len(_ROWS), sum(_ROWS[0])
    ids = torch.randint(1, vocab, shape, generator=rng)
    changed = ids.clone()
    for row, lengths in enumerate(_ROWS):
        changed[row, : lengths[0]] = torch.randint(1, vocab, (lengths[0],), generator=rng)
    positions = torch.stack([torch.cat([torch.arange(length) for length in lengths]) for lengths in _ROWS])
    through = torch.arange(shape[1]).expand(shape)  # of one long document

    def logits(ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
        inputs = {key: value.to(model.device) if torch.is_tensor(value) else value for key, value in inputs.items()}
        output: torch.Tensor = model(input_ids=ids.to(model.device), **inputs).logits.float().cpu()
        return output

    packed, other = (logits(each, **packed_inputs(positions, separation, model.dtype)) for each in (ids, changed))
    joined, other_joined = (logits(each, position_ids=through, use_cache=False) for each in (ids, changed))
    tolerance = _TOLERANCES[model.dtype] * max(1.0, float(packed.abs().max()))
    sees_before = False
    for row, lengths in enumerate(_ROWS):
        start = 0
        for length in lengths:
            part = row, slice(start, start + length)
            alone = logits(ids[part][None], position_ids=torch.arange(length)[None], use_cache=False)[0]
            if float((packed[part] - alone).abs().max()) > tolerance:
                return False
            if start and float((packed[part] - other[part]).abs().max()) > tolerance:
                return False
            sees_before |= bool(start) and float((joined[part] - other_joined[part]).abs().max()) > 10 * tolerance
            start += length
    return sees_before
