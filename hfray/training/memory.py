"""How much memory training takes on each worker, before anything is loaded. Knows sizes and formulas; not devices.

Weights, gradients and optimizer states, and what each ZeRO stage divides by the number of workers, are those of
Rajbhandari et al. 2020 (arXiv:1910.02054, sections 3 and 5): with Adam in mixed precision 2 + 2 + 12 bytes a parameter.
DeepSpeed's own estimates (`estimate_zero2_model_states_mem_needs`, `estimate_zero3_model_states_mem_needs`) add 4, the
step's gradients in fp32, and half as much again for what is offloaded; so does this one. A 4-bit base takes 4.5 bits a
weight, with double quantisation 4.13 (Dettmers et al. 2023, arXiv:2305.14314, section 3). Activations are those of
Korthikanti et al. 2022 (arXiv:2205.05198, section 4): 34 bytes for each token, layer and hidden unit at 16 bits, and
the attention matrix where the implementation holds it; with checkpointing the inputs of all layers, and one layer.

The result is an estimate to choose by, not a measurement: a frozen layer keeps fewer activations, allocators need more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hfray.training.size import ModelSize

Precision = Literal["fp32", "bf16", "fp16"]
Offload = Literal["none", "optimizer", "all"]

_FP32_BYTES = 4
_MOMENTS_BYTES = 8
"""Adam's two, in fp32."""
_HOST_FACTOR = 1.5
_BITS_4, _BITS_4_DOUBLE = 4.5, 4.127
GPU_OVERHEAD_BYTES = 1 << 30
"""The CUDA context, cuBLAS' and nccl's workspaces: about 0.5 to 1 GiB."""
CPU_OVERHEAD_BYTES = 1 << 30
"""A process that has imported torch, Transformers, DeepSpeed and Ray."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the memory depends on beside the model."""

    stage: int
    world_size: int
    precision: Precision
    micro_batch_size: int
    max_tokens: int
    """Of an example."""
    bits: Literal[4] | None = None
    """Of the base model's linear layers; None: those of the precision."""
    double_quantization: bool = True
    checkpointing: bool = False
    """Whether activations are computed again in the backward pass."""
    eager_attention: bool = False
    """Whether the attention matrix is held."""
    offload: Offload = "none"
    on_gpu: bool = True

    @property
    def element_bytes(self) -> int:
        return 4 if self.precision == "fp32" else 2


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes of one worker, on its device; host: what is offloaded from it."""

    weights: int
    gradients: int
    optimizer: int
    buffers: int
    """Of communication, and of weights that ZeRO-3 gathers."""
    activations: int
    overhead: int
    host: int = 0

    @property
    def device(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.buffers + self.activations + self.overhead

    def __str__(self) -> str:
        """`12.3 GiB (weights 2.0, gradients 2.0, ...)`; parts below 0.1 GiB are left out."""
        names = ("weights", "gradients", "optimizer", "buffers", "activations", "overhead")
        parts = [f"{name} {value / 2**30:.1f}" for name in names if (value := getattr(self, name)) >= 0.05 * 2**30]
        listed = f" ({', '.join(parts)})" if parts else ""
        return f"{self.device / 2**30:.1f} GiB{listed}" + (
            f" and {self.host / 2**30:.1f} GiB of the host's" if self.host else ""
        )


def estimate(size: ModelSize, setting: Setting) -> Estimate:
    """The most that a worker needs at once."""
    shares = setting.world_size
    weights = weight_bytes(size, setting)
    gradients = float(size.trainable * setting.element_bytes)
    optimizer = float(size.trainable * _state_bytes(setting))
    if setting.stage >= 1:
        optimizer /= shares
    if setting.stage >= 2:
        gradients /= shares
    if setting.stage >= 3:
        # Whether 4-bit weights are divided too depends on how they are loaded: not counted on.
        whole = 0.0 if setting.bits is None else _quantized_bytes(size, setting)
        weights = whole + (weights - whole) / shares
    host = 0.0
    if setting.offload != "none":
        # The gradients go to the host as they are made.
        host += _HOST_FACTOR * optimizer
        gradients = optimizer = 0.0
    if setting.offload == "all":
        host += _HOST_FACTOR * weights
        weights = 0.0
    return Estimate(
        weights=round(weights),
        gradients=round(gradients),
        optimizer=round(optimizer),
        buffers=_buffer_bytes(size, setting),
        activations=activation_bytes(size, setting),
        overhead=GPU_OVERHEAD_BYTES if setting.on_gpu else CPU_OVERHEAD_BYTES,
        host=round(host),
    )


def weight_bytes(size: ModelSize, setting: Setting) -> float:
    """Of the base model and an adapter, undivided."""
    if setting.bits is None:
        return float((size.parameters + size.added) * setting.element_bytes)
    rest = size.parameters - size.linear + size.added
    return _quantized_bytes(size, setting) + rest * setting.element_bytes


def activation_bytes(size: ModelSize, setting: Setting) -> int:
    """Of one micro-batch of the longest examples, with the logits and their gradient in fp32."""
    tokens = setting.micro_batch_size * setting.max_tokens
    wide = setting.element_bytes == _FP32_BYTES
    # The 34 are 18, two of them dropout masks of a byte, and 16 of the MLP, which keeps eight times the hidden size.
    mlp = (size.mlp_elements or 8 * size.hidden_size) * setting.element_bytes
    layer = tokens * (size.hidden_size * (34 if wide else 18) + mlp)
    if setting.eager_attention:
        layer += tokens * size.num_heads * setting.max_tokens * (9 if wide else 5)
    layers = layer * size.num_layers
    if setting.checkpointing:
        layers = tokens * size.hidden_size * setting.element_bytes * size.num_layers + layer
    return layers + tokens * size.vocab_size * (setting.element_bytes + 2 * _FP32_BYTES)


def bucket_elements(size: ModelSize) -> int:
    """Gradients that are reduced at once: as Transformers' `auto` the hidden size squared, within reason."""
    return min(max(size.hidden_size**2, 1 << 20), 1 << 28)


def live_elements(size: ModelSize) -> int:
    """Weights that ZeRO-3 may hold gathered: two of the largest modules, the one in use and the next."""
    return max(2 * size.largest_module, 1 << 22)


def _quantized_bytes(size: ModelSize, setting: Setting) -> float:
    return size.linear * (_BITS_4_DOUBLE if setting.double_quantization else _BITS_4) / 8


def _state_bytes(setting: Setting) -> int:
    """A trainable parameter's optimizer states: Adam's moments, the fp32 copy and the step's fp32 gradient."""
    if setting.precision != "fp32":
        return _MOMENTS_BYTES + 2 * _FP32_BYTES
    # ZeRO-1 and 2 copy the weights of their share even where they are fp32 already.
    return _MOMENTS_BYTES + (_FP32_BYTES if setting.stage in (1, 2) or setting.offload != "none" else 0)


def _buffer_bytes(size: ModelSize, setting: Setting) -> int:
    if setting.world_size == 1 and setting.stage < 3:
        return 0
    buckets = 2 * min(bucket_elements(size), size.trainable)
    gathered = min(live_elements(size), size.parameters) if setting.stage == 3 else 0
    return (buckets + gathered) * setting.element_bytes
