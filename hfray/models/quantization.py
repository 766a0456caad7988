"""bitsandbytes quantisation, and how much memory weights take with and without it. Knows parameters; not models.

Formats: LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339), NF4, FP4 and double quantisation (Dettmers et al. 2023,
arXiv:2305.14314).
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from hfray.spec.sections import ModelSpec


def quantization_config(spec: ModelSpec, dtype: torch.dtype) -> Any:
    """What `from_pretrained` takes; None for no quantisation. Products are computed in `dtype`."""
    if spec.quantization == "none":
        return None
    from transformers import BitsAndBytesConfig

    if spec.quantization == "int8":
        logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_no_cast_notice)
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=spec.int8_threshold)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=spec.quantization,
        bnb_4bit_use_double_quant=spec.double_quantization,
        bnb_4bit_compute_dtype=dtype,
    )


def _is_no_cast_notice(record: logging.LogRecord) -> bool:
    """bitsandbytes tells at every int8 product that it casts to float16."""
    return not str(record.msg).startswith("MatMul8bitLt: inputs will be cast")


def num_parameters(model: torch.nn.Module) -> int:
    """Weights that the model stands for, tied ones once; bitsandbytes packs two 4-bit weights into a byte."""
    return sum(_num_weights(parameter) for parameter in model.parameters())


def _num_weights(parameter: Any) -> int:
    state = getattr(parameter, "quant_state", None)
    return int(parameter.numel() if state is None else state.shape.numel())


def bytes_in(model: torch.nn.Module, dtype: torch.dtype) -> int:
    """Memory of all weights in `dtype`, and of the buffers as they are."""
    buffers: int = sum(buffer.nbytes for buffer in model.buffers())
    return num_parameters(model) * int(dtype.itemsize) + buffers


def bytes_now(model: torch.nn.Module) -> int:
    """Memory of weights and buffers as they are, with the scales of quantised ones (which are neither)."""
    weights: int = sum(parameter.nbytes + _scale_bytes(parameter) for parameter in model.parameters())
    buffers: int = sum(buffer.nbytes for buffer in model.buffers())
    return weights + buffers


def _scale_bytes(parameter: Any) -> int:
    state = getattr(parameter, "quant_state", None)
    scales = [getattr(parameter, "SCB", None), getattr(state, "absmax", None), getattr(state, "offset", None)]
    scales.append(getattr(getattr(state, "state2", None), "absmax", None))
    return sum(scale.nbytes for scale in scales if isinstance(scale, torch.Tensor))
