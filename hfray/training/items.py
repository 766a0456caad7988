"""Of how many items a model's loss of a batch is the mean. Knows labels and Transformers' names for losses; computes
none.

Trainer scales losses by a count that it hands to the model, and only some models' losses heed it; those of the others
would come out too large by the number of workers and of accumulated batches. Counted here, the mean that every model
gives of its own batch is weighted instead, whatever the model is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hfray.tasks.features.base import IGNORED


def shifts_labels(model: Any) -> bool:
    """Whether a model compares each label with the token before it, so that the first one does not count."""
    from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss

    from hfray.models.adapter import body_of

    body = body_of(model)
    # The causal loss is also that of models whose name says nothing (GPT2LMHeadModel), as `loss_function` has it.
    loss = LOSS_MAPPING.get(getattr(body, "loss_type", None), ForCausalLMLoss)
    return loss is ForCausalLMLoss and not body.config.is_encoder_decoder


def num_items(batch: Mapping[str, Any], *, shifted: bool) -> int:
    """Tokens with a label, or rows, of a batch of tensors."""
    labels = batch.get("labels")
    if labels is None or labels.dim() < 2 or labels.is_floating_point():
        return int(batch["input_ids"].shape[0])
    return int(((labels[..., 1:] if shifted else labels) != IGNORED).sum())
