"""LoRA adapters with random weights, saved by PEFT, and what PEFT itself computes with them."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import torch

from hfray.models.source import ModelSource, resolve_source


def save_lora(model: Any, folder: Path, *, seed: int = 0, std: float = 0.5, **settings: Any) -> Any:
    """Saves an adapter for a copy of the model; returns PEFT's model of both."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # imports of the other side
        import peft

        torch.manual_seed(seed)
        adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **settings}))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                torch.nn.init.normal_(parameter, std=std)
        adapted.save_pretrained(folder)
    return adapted.eval()


def source_of(folder: Path) -> ModelSource:
    return resolve_source(str(folder), None, kind="adapter")
