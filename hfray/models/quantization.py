"""bitsandbytes quantisation, and how much memory weights take with and without it. Knows parameters; not models.

Formats: LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339), NF4, FP4 and double quantisation (Dettmers et al. 2023,
arXiv:2305.14314).
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from hfray.spec.sections import ModelSpec

_KERNEL_OUTPUTS = 32


def quantization_config(spec: ModelSpec, dtype: torch.dtype) -> Any:
    """What `from_pretrained` takes; None for no quantisation. Products are computed in `dtype`."""
    if spec.quantization == "none":
        return None
    if spec.quantization == "int8":
        _quiet_bitsandbytes()
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=spec.int8_threshold)
    return four_bits(spec.quantization, dtype, double=spec.double_quantization)


def four_bits(kind: str, dtype: torch.dtype, *, double: bool, **more: Any) -> Any:
    """What `from_pretrained` takes for nf4 or fp4. double: whether the scales are quantised too; more: of bitsandbytes'
    settings."""
    _quiet_bitsandbytes()
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=dtype,
        **more,
    )


def is_quantized(config: Any) -> bool:
    """Whether the weights that the configuration stands for are saved quantised."""
    return getattr(config, "quantization_config", None) is not None


def quantization_of(config: Any) -> str:
    """How the weights of a loaded or saved model are quantised: none, int8, nf4, fp4, or another method's name."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return "none"
    settings = found if isinstance(found, dict) else found.to_dict()
    if settings.get("load_in_8bit"):
        return "int8"
    if settings.get("load_in_4bit"):
        return str(settings.get("bnb_4bit_quant_type", "fp4"))
    return str(getattr(settings.get("quant_method"), "value", settings.get("quant_method")))


def prepare_quantized(config: Any, dtype: torch.dtype | Literal["auto"]) -> None:
    """Before weights are loaded that were saved quantised: 4-bit products are computed in `dtype`, as if they were
    quantised now, whatever the dtype was when they were saved."""
    if quantization_of(config) not in ("int8", "nf4", "fp4"):
        return
    _quiet_bitsandbytes()
    if isinstance(dtype, torch.dtype) and isinstance(config.quantization_config, dict):
        name = str(dtype).removeprefix("torch.")
        config.quantization_config = {**config.quantization_config, "bnb_4bit_compute_dtype": name}


def _quiet_bitsandbytes() -> None:
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_no_cast_notice)
    import_bitsandbytes()


def import_bitsandbytes() -> None:
    """Imports it without the package `kernels`: with it, on a processor with AVX512-BF16, its import fetches compiled
    code from the hub, at no commit that anybody has pinned, and runs it. (bitsandbytes 0.50, backends/cpu/ops.py)

    To be called before anything else can import it, as PEFT does.
    """
    if "bitsandbytes" in sys.modules:
        return
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_no_kernel_notice)
    with _hidden("kernels"):
        importlib.import_module("bitsandbytes")


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Importing the package fails meanwhile."""
    hidden = {name: sys.modules[name] for name in list(sys.modules) if name.partition(".")[0] == package}
    for name in hidden:
        del sys.modules[name]
    sys.modules[package] = None  # type: ignore[assignment]  # the documented way to say that there is none
    try:
        yield
    finally:
        del sys.modules[package]
        sys.modules.update(hidden)


def spare_odd_layers(model: torch.nn.Module) -> None:
    """Leaves 4-bit layers of other shapes out of bitsandbytes' kernel for processors with AVX512-BF16.

    The kernel takes weights repacked in blocks of 32 outputs, with whole quantisation blocks in each row; for any other
    shape (a classifier of 3 labels) the repacking fails at the first forward pass. Left out, a layer is dequantised and
    multiplied as on other processors. (bitsandbytes 0.50, functional._convert_weight_packed_for_cpu)
    """
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None and hasattr(module, "support_avx512bf16_for_cpu"):
            outputs, inputs = state.shape
            if outputs % _KERNEL_OUTPUTS or inputs % state.blocksize:
                module.support_avx512bf16_for_cpu = False


def put_plain_layers(model: Any, names: Collection[str]) -> None:
    """Puts plain layers in place of the quantised ones at and below the modules of these names. Their weights are
    random: an adapter brings them whole, and they were never rounded while they were trained."""
    quantised = ("Linear4bit", "Linear8bitLt")
    for path, module in list(model.named_modules()):
        inside = any(f".{name}." in f".{path}." for name in names)
        if inside and type(module).__name__ in quantised:
            plain = torch.nn.Linear(
                module.in_features, module.out_features, module.bias is not None, module.weight.device, model.dtype
            )
            model.set_submodule(path, plain)


def spare_all_layers(model: torch.nn.Module) -> None:
    """Leaves all 4-bit layers out of that kernel: at the first evaluation it repacks weights for good, and a layer so
    packed has no gradients to pass on. (bitsandbytes 0.50, nn.modules.Linear4bit.forward)"""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _is_no_cast_notice(record: logging.LogRecord) -> bool:
    """bitsandbytes tells at every int8 product that it casts to float16."""
    return not str(record.msg).startswith("MatMul8bitLt: inputs will be cast")


def _is_no_kernel_notice(record: logging.LogRecord) -> bool:
    """On a processor with AVX512-BF16 bitsandbytes says at its import that it would rather fetch a kernel."""
    return not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")


def num_parameters(model: torch.nn.Module) -> int:
    """Weights that the model stands for, tied ones once; bitsandbytes packs two 4-bit weights into a byte."""
    return sum(num_weights(parameter) for parameter in model.parameters())


def num_weights(parameter: Any) -> int:
    """Of one parameter, as `num_parameters` counts."""
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
