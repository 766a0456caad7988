"""PEFT adapters on a loaded model. Knows adapter files; not which model or task wants them.

Importing peft takes seconds, so it happens here and only when a job names an adapter.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hfray.errors import SpecError
from hfray.models.quantization import import_bitsandbytes, put_plain_layers
from hfray.models.source import ModelSource

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TASKS_WITH_HEADS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
"""For these PEFT trains and saves the head unasked."""


def check_adapter(adapter: ModelSource) -> bool:
    """Whether the adapter brings a head of its own. Raises SpecError unless it is one that hfray can load: a PEFT
    adapter in safetensors that changes weights."""
    config = adapter.read_json(_CONFIG)
    if not isinstance(config, dict):
        raise SpecError(f"adapter {adapter.name}: it has no {_CONFIG}, so it is no PEFT adapter")
    if _WEIGHTS not in adapter.files:
        raise SpecError(
            f"adapter {adapter.name}: it has no {_WEIGHTS}; pickled weights can run code and are not loaded"
        )
    if config.get("num_virtual_tokens"):
        raise SpecError(
            f"adapter {adapter.name}: {config.get('peft_type')} puts tokens before the text; hfray takes adapters that "
            "change weights, such as LoRA"
        )
    return bool(config.get("modules_to_save")) or config.get("task_type") in TASKS_WITH_HEADS


def body_of(model: Any) -> Any:
    """The Transformers model that PEFT has wrapped; any other model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def attach_adapter(model: Any, adapter: ModelSource, *, merge: bool, missing: Collection[str] = ()) -> Any:
    """The Transformers model with the adapter merged into its weights, or with its layers in place.

    missing: weights that the model's own files lack, so that the adapter must bring them (a head).
    Raises SpecError for an adapter that does not fit in full: a part left out would change answers silently.
    """
    check_adapter(adapter)
    put_plain_layers(model, (adapter.read_json(_CONFIG) or {}).get("modules_to_save") or ())
    weights = Path(adapter.local_file(_WEIGHTS))
    adapter.local_file(_CONFIG)  # beside the weights, so that PEFT finds both in one folder and asks no hub
    import_bitsandbytes()  # which PEFT would import
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="pt") as handle:
            saved = set(handle.keys())
        absent = sorted(name for name in missing if f"base_model.model.{name}" not in saved)
        if absent:
            raise SpecError(
                f"adapter {adapter.name}: neither it nor the model has weights for {', '.join(absent[:4])}; "
                "they would be random"
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            # PEFT asks Transformers by a name that Transformers is about to drop.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            adapted = PeftModel.from_pretrained(
                model, str(weights.parent), is_trainable=False, torch_device=str(model.device)
            )
        unused = sorted(saved - set(get_peft_model_state_dict(adapted, save_embedding_layers=False)))
        if unused:
            raise ValueError(f"the model has no place for {', '.join(unused[:4])}")
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, UserWarning, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        hint = "; if its head has other labels, name them as task.labels" if "size mismatch" in reason else ""
        raise SpecError(f"adapter {adapter.name} does not fit model {model.name_or_path}: {reason}{hint}") from error
    if merge and hasattr(adapted.base_model, "merge_and_unload") and not _changes_tied(adapted):
        return adapted.merge_and_unload()
    return adapted.get_base_model()


def _changes_tied(adapted: Any) -> bool:
    """Whether the adapter changes one of two layers that share their weights: merged, it would change both."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in adapted.modules() if isinstance(module, BaseTunerLayer)]
    changed = {id(getattr(layer.get_base_layer(), "weight", None)) for layer in layers}
    owners = Counter(id(weight) for _, weight in adapted.named_parameters(remove_duplicate=False))
    return any(owners[weight] > 1 for weight in changed)


def is_merged(model: Any) -> bool:
    """Whether no layer of an adapter is left in the model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return not any(isinstance(module, BaseTunerLayer) for module in model.modules())
