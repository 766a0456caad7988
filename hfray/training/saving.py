"""The trained model as files: its weights, whole or an adapter's, with everything that scoring and serving need to load
them. Knows models and folders; not where the folder goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hfray.models.adapter import body_of
from hfray.models.source import ModelSource
from hfray.models.tokenizers import save_tokenizer

State = dict[str, torch.Tensor]
"""Weights by the names of `state_dict`, on the CPU."""


def save_model(
    model: Any, state: State, folder: Path, *, config: Any, tokenizer: Any, source: ModelSource | None
) -> None:
    """Writes `model.safetensors` (or `adapter_model.safetensors`), configurations and the tokenizer. For one rank.

    state: see `whole_state`. config: of the model, as it was before training turned its cache off, or put it in 4 bits.
    """
    is_adapter, body = _is_adapter(model), body_of(model)
    if hasattr(config, "use_cache"):
        body.config.use_cache = config.use_cache
    if is_adapter:
        for adapter in model.peft_config.values():
            adapter.base_model_name_or_path = None if source is None else source.name
            adapter.revision = None if source is None else source.revision
        with _named(body, source):
            model.save_pretrained(str(folder), state_dict=state, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's own, with nothing in it; ours has the run
        config.architectures = [type(body).__name__]
        config.save_pretrained(folder)
    else:
        model.save_pretrained(str(folder), state_dict=state)
    for name, content in save_tokenizer(tokenizer).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@contextmanager
def _named(body: Any, source: ModelSource | None) -> Iterator[None]:
    """PEFT looks at the base model's name to tell whether its vocabulary was enlarged, and asks the hub for it."""
    before = body.name_or_path
    body.name_or_path = "" if source is None else source.path
    try:
        yield
    finally:
        body.name_or_path = before


def whole_state(model: Any, *, keep: bool) -> State:
    """What is saved of a model: all of it, or its adapter. All ranks call it, since weights may be divided among them;
    one at a time, so that no device holds more than one of them whole. {} where they are not to be kept."""
    trainable_only = _is_adapter(model)
    state: State = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if trainable_only and not parameter.requires_grad:
            continue
        with _whole(parameter):
            if keep:
                state[name] = parameter.detach().to("cpu", copy=True)
    if keep and not trainable_only:
        persistent = model.state_dict(keep_vars=True).keys() - state.keys()
        state |= {name: each.detach().cpu() for name, each in model.named_buffers() if name in persistent}
    return state


def _is_adapter(model: Any) -> bool:
    return hasattr(model, "peft_config")


@contextmanager
def _whole(parameter: Any) -> Iterator[None]:
    """A parameter with all its elements, where ZeRO-3 has divided them."""
    if not hasattr(parameter, "ds_id"):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        yield
