"""What a failure of a model means, and what would fail before it runs. Knows exceptions and items; not queues."""

from __future__ import annotations

from typing import Any

import torch

from hfray.errors import EngineError, ItemError
from hfray.models.lora import AdapterBank
from hfray.types import Item

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
_DEVICE_LOST = ("CUDA error", "device-side assert", "unspecified launch failure", "NCCL error")


def is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)


def is_device_lost(error: Exception) -> bool:
    """Too little memory is none of it, though CUDA says it with the same words."""
    return not is_out_of_memory(error) and any(sign in str(error) for sign in _DEVICE_LOST)


def as_engine_error(error: BaseException) -> EngineError:
    if isinstance(error, EngineError):
        return error
    wrapped = EngineError(f"the engine failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def model_failure(error: Exception) -> ItemError:
    """For the one item that the model failed on."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return ItemError(f"the model failed on this input: {reason[:300]}", type="ModelFailure")


def vocab_size(model: Any) -> int | None:
    """Rows of the embedding table; None where a model has none."""
    try:
        return int(model.get_input_embeddings().num_embeddings)
    except (AttributeError, NotImplementedError):
        return None


def input_problem(item: Item, num_embeddings: int | None, adapters: AdapterBank | None = None) -> ItemError | None:
    """What would fail, or on a GPU lose the device, in the embedding look-up; and an adapter that is not there."""
    if item.adapter is not None and (adapters is None or item.adapter not in adapters.names):
        known = ", ".join(adapters.names[:20]) if adapters is not None else "none"
        return ItemError(f"there is no adapter {item.adapter!r:.80}; the model has {known}", type="UnknownAdapter")
    if item.adapter is None and adapters is not None and adapters.missing:
        return ItemError("the model has no head of its own, so the row must name an adapter", type="NoAdapter")
    ids = item.inputs.get("input_ids")
    if ids is None:
        return None
    if len(ids) == 0:
        return ItemError("the input has no tokens", type="EmptyInput")
    if num_embeddings is not None and (int(ids.max()) >= num_embeddings or int(ids.min()) < 0):
        return ItemError(
            f"token id {int(ids.max())} is outside the model's vocabulary of {num_embeddings}; "
            "tokenizer and model do not belong together",
            type="TokenOutOfRange",
        )
    return None
