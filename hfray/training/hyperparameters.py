"""The values beside the tensors: hyperparameters of each group, step counts, the scale of fp16. Knows optimizers and
plain JSON; not files.

DeepSpeed's own universal checkpoints copy the first group's hyperparameters into all groups when ZeRO 3 loads them, so
weights without decay begin to decay. Here each group is known by the parameters that it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hfray.errors import SpecError
from hfray.training.slots import Layout, Slot

_HOW = ("params", "fused", "foreach", "capturable", "differentiable")
"""Keys of a group that say how it is computed, not what."""
_SCALE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
_COUNTERS = ("global_steps", "global_samples", "skipped_steps")


def groups_of(layout: Layout) -> list[dict[str, Any]]:
    """Plain JSON: `parameters`, `values` of each group."""
    return [
        {
            "parameters": list(names),
            "values": {
                key: _plain(value) for key, value in group.items() if key not in _HOW and not key.startswith("_")
            },
        }
        for names, group in zip(layout.groups, layout.optimizer.param_groups, strict=True)
    ]


def restore_groups(layout: Layout, saved: Iterable[Mapping[str, Any]]) -> None:
    """Puts lr, weight_decay, betas and the like back into the group that has the same parameters, in whatever order the
    groups are. Raises SpecError: the parameters are trained in other groups now.
    """
    by_names = {frozenset(each["parameters"]): each["values"] for each in saved}
    for names, group in zip(layout.groups, layout.optimizer.param_groups, strict=True):
        values = by_names.get(frozenset(names))
        if values is None:
            raise SpecError(
                f"trainer: {names[0]} and {len(names) - 1} other parameters are a group of hyperparameters now, and "
                "were none when the checkpoint was written; use the release that wrote it, or start over with --restart"
            )
        for key, value in values.items():
            current = group.get(key)
            if hasattr(current, "fill_"):
                current.fill_(value)
            else:
                group[key] = tuple(value) if isinstance(value, list) else value


def scalars_of(layout: Layout) -> dict[str, dict[str, Any]]:
    """What the optimizer keeps of a parameter beside tensors of its size (a step count), by the parameter's name; plain
    JSON. Of this rank's slots."""
    return {
        slot.name: {
            key: _tagged(value)
            for key, value in layout.optimizer.state.get(slot.owner, {}).items()
            if not is_elementwise(key, value, slot)
        }
        for slot in layout.slots
    }


def restore_scalars(layout: Layout, saved: Mapping[str, Mapping[str, Any]]) -> None:
    """saved: `scalars_of` of all ranks together.

    Raises SpecError: parameters with other step counts would have to share one.
    """
    by_owner: dict[int, list[Slot]] = {}
    for slot in layout.slots:
        # A parameter that never had a gradient has none, and takes its owner's.
        if saved.get(slot.name):
            by_owner.setdefault(id(slot.owner), []).append(slot)
    for slots in by_owner.values():
        first = slots[0]
        values = saved[first.name]
        other = next((slot.name for slot in slots if saved[slot.name] != values), None)
        if other is not None:
            raise SpecError(
                f"deepspeed: {first.name} and {other} have been trained for different numbers of steps, which this "
                "ZeRO stage cannot express; use the stage that the run began with"
            )
        options = layout.optimizer.param_groups[first.group]
        state = layout.optimizer.state[first.owner]
        state |= {key: _untagged(value, first.owner, options) for key, value in values.items()}


def is_elementwise(key: str, value: Any, slot: Slot) -> bool:
    """Whether an optimizer's state is a tensor laid out as the slot's owner; a count is none, also of one element."""
    return key != "step" and hasattr(value, "shape") and value.shape == slot.owner.shape


def counters_of(engine: Any, layout: Layout) -> dict[str, Any]:
    """Plain JSON: what DeepSpeed counts, and the scale of fp16."""
    return {
        "engine": {name: getattr(engine, name) for name in _COUNTERS if hasattr(engine, name)},
        "scale": {name: _plain(getattr(layout.scaler, name)) for name in _SCALE if hasattr(layout.scaler, name)},
    }


def restore_counters(engine: Any, layout: Layout, saved: Mapping[str, Any]) -> None:
    """Micro-steps follow from steps, since another world size accumulates differently."""
    for name, value in saved["engine"].items():
        if hasattr(engine, name):
            setattr(engine, name, value)
    if hasattr(engine, "micro_steps"):
        engine.micro_steps = engine.global_steps * engine.gradient_accumulation_steps()
    for name, value in saved["scale"].items():
        if hasattr(layout.scaler, name):
            setattr(layout.scaler, name, value)


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    return list(value) if isinstance(value, tuple) else value


def _tagged(value: Any) -> Any:
    if hasattr(value, "item"):
        return {"value": value.item(), "dtype": str(value.dtype).removeprefix("torch.")}
    return {"value": value, "dtype": None}


def _untagged(saved: Mapping[str, Any], owner: Any, options: Mapping[str, Any]) -> Any:
    import torch

    if saved["dtype"] is None:
        return saved["value"]
    # torch keeps step counts on the host, but for the implementations that would have to wait for them there.
    device = owner.device if options.get("fused") or options.get("capturable") else torch.device("cpu")
    return torch.tensor(saved["value"], dtype=getattr(torch, saved["dtype"]), device=device)
