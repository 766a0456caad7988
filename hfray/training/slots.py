"""Where the state of each trained parameter lies on this rank: which elements of it, in which of the optimizer's
tensors. Knows the optimizers that DeepSpeed makes of torch's (0.19.8); not files.

A parameter is a row of elements. ZeRO 1 and 2 lay the parameters of a group end to end and give each rank an equal part
of that row; ZeRO 3 gives each rank an equal part of each parameter; without ZeRO each rank has all of all. A slot says
so for one parameter, so whatever is written by slots can be read by other slots, of another stage or world size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from hfray.errors import EngineError


@dataclass(frozen=True, slots=True)
class Slot:
    """Elements [start, start + numel) of a parameter are elements [offset, offset + numel) of the owner."""

    name: str
    group: int
    """Number of its group of hyperparameters."""
    start: int
    numel: int
    owner: Any
    """The optimizer's own tensor, [any shape]: the weights in the precision that is trained, and the key of their
    state."""
    offset: int

    def of(self, tensor: Any) -> Any:
        """These elements, [numel], of a tensor that is laid out as the owner; a view."""
        return tensor.detach().view(-1).narrow(0, self.offset, self.numel)

    def part(self, number: int, parts: int) -> Slot:
        """One of so many equal parts of it."""
        low, high = (self.numel * each // parts for each in (number, number + 1))
        return replace(self, start=self.start + low, offset=self.offset + low, numel=high - low)


@dataclass(frozen=True, slots=True)
class Layout:
    """How one rank holds the trained parameters and their optimizer's state."""

    slots: tuple[Slot, ...]
    groups: tuple[tuple[str, ...], ...]
    """Names of the parameters of each group of `optimizer.param_groups`, on all ranks alike."""
    shapes: dict[str, tuple[int, ...]]
    """Of all trained parameters, whole."""
    optimizer: Any
    """torch's own; its groups hold the hyperparameters."""
    replicated: bool
    """Whether each rank has everything."""
    scaler: Any
    """What counts and scales for fp16; None where there is none."""
    publish: Callable[[], None]
    """Makes the model's weights those of the owners; all ranks call it."""


def layout_of(engine: Any, optimizer: Any = None) -> Layout:
    """engine: what `deepspeed.initialize` gives; or a module (also in DistributedDataParallel) with its optimizer.

    Raises EngineError for an optimizer that is not known.
    """
    wrapped = engine.optimizer if optimizer is None else optimizer
    # Accelerate wraps the optimizer of a run without DeepSpeed; what DeepSpeed makes has an `optimizer` too.
    if type(wrapped).__name__ == "AcceleratedOptimizer":
        wrapped = wrapped.optimizer
    module = getattr(engine, "module", engine)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    makers = {
        "DeepSpeedZeroOptimizer_Stage3": _zero_3,
        "DeepSpeedZeroOptimizer": _zero_1_and_2,
        "BF16_Optimizer": _bf16,
        "FP16_UnfusedOptimizer": _unfused,
        "FP16_Optimizer": _fused,
    }
    make = makers.get(type(wrapped).__name__, _plain if _is_torch_optimizer(wrapped) else None)
    if make is None:
        raise EngineError(f"checkpoints: {type(wrapped).__name__} is no optimizer that hfray can save; use adamw_torch")
    return make(wrapped, names)


def _plain(optimizer: Any, names: dict[int, str]) -> Layout:
    groups = [[each for each in group["params"] if each.requires_grad] for group in optimizer.param_groups]
    return _whole(optimizer, names, groups, groups, None)


def _unfused(wrapped: Any, names: dict[int, str]) -> Layout:
    return _whole(wrapped.optimizer, names, wrapped.fp16_groups, wrapped.fp32_groups, wrapped.loss_scale_config)


def _whole(optimizer: Any, names: dict[int, str], models: Any, owners: Any, scaler: Any) -> Layout:
    """Every rank has an owner for each parameter. models, owners: tensors by group; the same, or copies."""
    slots = [
        Slot(names[id(weight)], group, 0, weight.numel(), owner, 0)
        for group, pair in enumerate(zip(models, owners, strict=True))
        for weight, owner in zip(*pair, strict=True)
    ]

    def publish() -> None:
        for pair in zip(models, owners, strict=True):
            for weight, owner in zip(*pair, strict=True):
                if weight is not owner:
                    weight.data.copy_(owner.data)

    return _layout(slots, models, names, optimizer, True, scaler, publish)


def _fused(wrapped: Any, names: dict[int, str]) -> Layout:
    """Every rank has one owner for each group."""
    slots: list[Slot] = []
    for group, weights in enumerate(wrapped.fp16_groups):
        flat = wrapped.fp32_groups_flat[group]
        slots += _overlaps(weights, _starts(weights), names, group, flat, 0)

    def publish() -> None:
        by_name = {slot.name: slot for slot in slots}
        for weight in (each for weights in wrapped.fp16_groups for each in weights):
            slot = by_name[names[id(weight)]]
            weight.data.view(-1).copy_(slot.of(slot.owner))

    return _layout(slots, wrapped.fp16_groups, names, wrapped.optimizer, True, wrapped.loss_scale_config, publish)


def _bf16(wrapped: Any, names: dict[int, str]) -> Layout:
    """ZeRO 1 with bf16 weights and fp32 gradients."""
    slots: list[Slot] = []
    for group, weights in enumerate(wrapped.bf16_groups):
        flat = wrapped.fp32_groups_flat_partition[group]
        begin = flat.numel() * wrapped.dp_rank
        slots += _overlaps(weights, _starts(weights), names, group, flat, begin)
    return _layout(slots, wrapped.bf16_groups, names, wrapped.optimizer, False, None, wrapped.update_lp_params)


def _zero_1_and_2(wrapped: Any, names: dict[int, str]) -> Layout:
    from deepspeed import comm

    slots: list[Slot] = []
    for group, flat in enumerate(wrapped.single_partition_of_fp32_groups):
        # Laid out in turns among the ranks where DeepSpeed is told so, with padding where it is told to align.
        weights, starts = wrapped.round_robin_bit16_groups[group], wrapped.round_robin_bit16_offsets[group]
        rank = comm.get_rank(group=wrapped.real_dp_process_group[group])
        slots += _overlaps(weights, starts, names, group, flat, flat.numel() * rank)
    return _layout(
        slots, wrapped.bit16_groups, names, wrapped.optimizer, False, wrapped.loss_scaler, wrapped.update_lp_params
    )


def _zero_3(wrapped: Any, names: dict[int, str]) -> Layout:
    slots: list[Slot] = []
    groups: list[list[Any]] = [[] for _ in wrapped.optimizer.param_groups]
    for number, weights in enumerate(wrapped.fp16_groups):
        group, owner = wrapped.sub_group_to_group_id[number], wrapped.fp32_partitioned_groups_flat[number]
        groups[group] += weights
        for weight in weights:
            _, offset, size = wrapped.grad_position[wrapped.get_param_id(weight)]
            start = size * wrapped._get_param_partition_rank(weight)
            # The last ranks' parts are padded, to be of equal size.
            numel = min(size, max(0, weight.ds_numel - start))
            slots.append(Slot(names[id(weight)], group, start, numel, owner, offset))

    def publish() -> None:
        # As at the end of a step: weights are divided, set from the owners, and the small ones gathered again.
        wrapped.checkpoint_event_prologue()
        for number in range(len(wrapped.fp16_groups)):
            wrapped._reassign_or_swap_out_partitioned_parameters(number)
        wrapped.checkpoint_event_epilogue()

    return _layout(slots, groups, names, wrapped.optimizer, False, wrapped.loss_scaler, publish)


def _overlaps(
    weights: Sequence[Any], starts: Iterable[int], names: dict[int, str], group: int, flat: Any, begin: int
) -> list[Slot]:
    """Of parameters that begin at `starts` in a row of which this rank has `flat`, from `begin` on."""
    found = []
    for weight, start in zip(weights, starts, strict=True):
        low, high = max(start, begin), min(start + weight.numel(), begin + flat.numel())
        if low < high:
            found.append(Slot(names[id(weight)], group, low - start, high - low, flat, low - begin))
    return found


def _starts(weights: Sequence[Any]) -> list[int]:
    return list(accumulate((weight.numel() for weight in weights), initial=0))[:-1]


def _layout(
    slots: Iterable[Slot],
    groups: Iterable[Sequence[Any]],
    names: dict[int, str],
    optimizer: Any,
    replicated: bool,
    scaler: Any,
    publish: Callable[[], None],
) -> Layout:
    groups = [list(weights) for weights in groups]
    return Layout(
        slots=tuple(slot for slot in slots if slot.numel),
        groups=tuple(tuple(names[id(weight)] for weight in weights) for weights in groups),
        shapes={
            names[id(weight)]: tuple(getattr(weight, "ds_shape", weight.shape))
            for weights in groups
            for weight in weights
        },
        optimizer=optimizer,
        replicated=replicated,
        scaler=scaler,
        publish=publish,
    )


def _is_torch_optimizer(optimizer: Any) -> bool:
    import torch

    return isinstance(optimizer, torch.optim.Optimizer)
