"""Which modules of a model an adapter changes. Knows models on the meta device and PEFT's choices; loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from hfray.errors import SpecError
from hfray.models.adapter import TASKS_WITH_HEADS
from hfray.models.quantization import import_bitsandbytes
from hfray.models.weights import reason_of
from hfray.spec.methods import LoraSpec
from hfray.spec.problems import close_or_known

PEFT_TASKS = {
    "AutoModelForSequenceClassification": "SEQ_CLS",
    "AutoModelForTokenClassification": "TOKEN_CLS",
    "AutoModelForQuestionAnswering": "QUESTION_ANS",
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
}
"""Auto class to PEFT's name for what it does; a masked language model has none."""


def on_meta(config: Any, auto_model: str) -> Any:
    """The model without memory. Raises SpecError: Transformers cannot build it."""
    import transformers

    try:
        with torch.device("meta"):
            return getattr(transformers, auto_model).from_config(config)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise SpecError(f"model.config: Transformers cannot build {auto_model} of it: {reason_of(error)}") from error


@dataclass(frozen=True, slots=True)
class Targets:
    """Which modules an adapter changes. layers: names of those that it stands beside, None for all linear ones below
    the head; whole: names of those that are trained as they are and saved with it."""

    layers: tuple[str, ...] | None
    whole: tuple[str, ...]
    head: tuple[str, ...] = ()
    """The model's top modules that are not its body."""
    output: tuple[str, ...] = ()
    """The embedding that makes logits; with the head it is never put in 4 bits."""


def targets_of(method: LoraSpec, model: Any, auto_model: str) -> Targets:
    """model: may be on the meta device. Raises SpecError: a module that the model does not have, with those that it
    has."""
    names = [name for name, _ in model.named_modules()]
    for field, wanted in (("target_modules", method.target_modules), ("train_modules", method.train_modules)):
        for each in () if isinstance(wanted, str) else wanted:
            if not any(name == each or name.endswith(f".{each}") for name in names):
                known = _linear_names(model) if field == "target_modules" else sorted({_last(name) for name in names})
                raise SpecError(
                    f"method.{field}: {type(model).__name__} has no module {each!r}{close_or_known(each, known)}"
                )
    layers: tuple[str, ...] | None
    if isinstance(method.target_modules, tuple):
        layers = method.target_modules
    else:
        layers = _usual_layers(model.config.model_type) if method.target_modules == "auto" else None
        if layers is not None and not any(_last(name) in layers for name in names):
            layers = None
    head = _head_modules(model)
    new = head if PEFT_TASKS.get(auto_model) in TASKS_WITH_HEADS else ()
    embedding = model.get_output_embeddings()
    output = tuple(name for name, module in model.named_modules() if embedding is not None and module is embedding)
    return Targets(layers, tuple(dict.fromkeys([*new, *method.train_modules])), head, output)


def _usual_layers(model_type: str) -> tuple[str, ...] | None:
    """Those that PEFT chooses for an architecture; None where it has no choice."""
    import_bitsandbytes()  # which PEFT would import
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    found = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model_type)
    return None if found is None or isinstance(found, str) else tuple(found)


def _head_modules(model: Any) -> tuple[str, ...]:
    """Top modules with weights that are not the body's."""
    return tuple(
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    )


def _linear_names(model: Any) -> list[str]:
    kinds = ("Linear", "Conv1D", "Linear4bit")
    return sorted({_last(name) for name, module in model.named_modules() if type(module).__name__ in kinds})


def _last(name: str) -> str:
    return name.rpartition(".")[2]
