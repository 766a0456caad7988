"""The state of a training run in a folder, sealed: weights in the precision that is trained, optimizer, random
generators, counts. Written by all ranks at once, each what it has; read by any number of ranks, each what it needs.

Knows files, slots and the order of things; not what the optimizers are like (`slots`, `hyperparameters`).

No rank gathers anything, no tensor is pickled, and what is written depends on neither the world size nor the ZeRO
stage: `rank-00000.safetensors` ... have pieces of parameters, `master/<parameter>` for the weights and
`<key>/<parameter>` for each of the optimizer's states, and where in its parameter each piece begins; `state.json` has
the rest. Frozen parameters are in none of them: they come from the base model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfray.errors import DataError, EngineError, SpecError
from hfray.training.collective import gather_json, together
from hfray.training.failures import CALMER
from hfray.training.hyperparameters import (
    counters_of,
    groups_of,
    is_elementwise,
    restore_counters,
    restore_groups,
    restore_scalars,
    scalars_of,
)
from hfray.training.manifest import Entry, entry_of, seal, sync_folder, unseal, verify
from hfray.training.rng import rng_state, seed_rank, set_rng_state
from hfray.training.secret import SecretKey
from hfray.training.slots import Layout, Slot, layout_of
from hfray.training.tensor_files import facts_of, write_tensors

STATE_FILE = "state.json"
_RANK_FILES = "rank-*.safetensors"
_MASTER, _BUFFER, _RNG = "master", "buffer", "rng"


def save_state(
    folder: Path,
    engine: Any,
    *,
    rank: int,
    world_size: int,
    key: SecretKey,
    extra: Mapping[str, Any],
    position: int = 0,
    optimizer: Any = None,
) -> None:
    """Writes and seals a checkpoint; all ranks call it, between two optimizer steps.

    folder: on a file system that all ranks see, or each rank's own, which are then put together in one; other files in
    it are sealed with the rest. engine, optimizer: see `layout_of`. extra: plain JSON of the caller's, given back by
    `load_state`. position: samples that the run has seen.

    Raises, on all ranks alike, DataError (the disk fails) or EngineError.
    """
    what = f"checkpoint {folder}"
    with together(what):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if rank == 0:
            # What an attempt that was cut off has left; of more ranks, perhaps.
            unseal(folder)
            for stale in (*folder.glob(_RANK_FILES), folder / STATE_FILE):
                stale.unlink(missing_ok=True)
    entries: list[Entry] = []
    with together(what):
        layout = layout_of(engine, optimizer)
        tensors, facts = _own_tensors(engine, layout, rank, world_size)
        _refuse_not_finite(tensors)
        entries.append(write_tensors(folder / _rank_file(rank), tensors, facts))
        if rank == 0:
            state = {
                "world_size": world_size,
                "position": position,
                "optimizer": type(layout.optimizer).__name__,
                "groups": groups_of(layout),
                "shapes": layout.shapes,
                "counters": counters_of(engine, layout),
                "extra": dict(extra),
            }
            entries.append(_write_json(folder / STATE_FILE, state))
        sync_folder(folder)
    rows = gather_json([[each.name, each.bytes, each.sha256] for each in entries])
    with together(what):
        if rank == 0:
            seal(folder, key, (Entry(*row) for of_rank in rows for row in of_rank))


def load_state(
    folder: Path,
    engine: Any,
    *,
    rank: int,
    world_size: int,
    key: SecretKey,
    seed: int = 0,
    weights_only: bool = False,
    shared: bool = True,
    optimizer: Any = None,
) -> dict[str, Any]:
    """Verifies a checkpoint, and makes the engine's state that of it; all ranks call it, before the first step. Gives
    what `save_state` was given as `extra`.

    seed: the job's, for the generators of ranks that the checkpoint knows nothing of. weights_only: leaves optimizer,
    counts and generators as they are. shared: all ranks see one folder, and each verifies a part of it.

    Raises, on all ranks alike: DataError, the checkpoint is not whole, not ours or damaged (see `verify`); SpecError,
    it is of another model, method or optimizer.
    """
    what = f"checkpoint {folder}"
    with together(what):
        verify(folder, key, part=rank if shared else 0, parts=world_size if shared else 1)
    with together(what):
        layout = layout_of(engine, optimizer)
        state = json.loads((folder / STATE_FILE).read_bytes())
        _check_same(layout, state)
        scalars = _read_tensors(folder, engine, layout, weights_only)
        if not weights_only:
            restore_scalars(layout, scalars)
            restore_groups(layout, state["groups"])
            restore_counters(engine, layout, state["counters"])
    layout.publish()
    if not weights_only:
        with together(what):
            _restore_rng(folder, rank, seed, state["position"])
    return dict(state["extra"])


def _own_tensors(engine: Any, layout: Layout, rank: int, world_size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What this rank writes, and what stands in the header beside it."""
    slots = layout.slots
    if layout.replicated:
        slots = tuple(part for slot in slots if (part := slot.part(rank, world_size)).numel)
    tensors: dict[str, Any] = {}
    starts: dict[str, int] = {}
    for slot in slots:
        starts[slot.name] = slot.start
        tensors[f"{_MASTER}/{slot.name}"] = slot.of(slot.owner)
        for state_key, value in layout.optimizer.state.get(slot.owner, {}).items():
            if is_elementwise(state_key, value, slot):
                tensors[f"{state_key}/{slot.name}"] = slot.of(value)
    if rank == 0:
        tensors |= {f"{_BUFFER}/{name}": buffer for name, buffer in _buffers(engine).items()}
    rng, rng_facts = rng_state()
    tensors |= {f"{_RNG}/{name}": value for name, value in rng.items()}
    return tensors, {"starts": starts, "scalars": scalars_of(layout), "rng": rng_facts}


def _refuse_not_finite(tensors: Mapping[str, Any]) -> None:
    """Raises EngineError: nothing that follows from such weights could be used, and an older checkpoint can."""
    import torch

    for name, tensor in tensors.items():
        if name.startswith(f"{_MASTER}/") and not torch.isfinite(tensor).all():
            raise EngineError(
                f"the weights {name.removeprefix(f'{_MASTER}/')} are not finite numbers any more; checkpoints of "
                f"earlier steps are kept; {CALMER}"
            )


def _read_tensors(folder: Path, engine: Any, layout: Layout, weights_only: bool) -> dict[str, dict[str, Any]]:
    """Fills the slots from whatever files have pieces of them. Gives the scalars of all parameters."""
    import torch
    from safetensors import safe_open

    slots = {slot.name: slot for slot in layout.slots}
    buffers = _buffers(engine)
    filled: dict[tuple[str, str], int] = {}
    scalars: dict[str, dict[str, Any]] = {}
    if not weights_only:
        for slot in layout.slots:
            layout.optimizer.state[slot.owner].clear()
    for path in sorted(folder.glob(_RANK_FILES)):
        with safe_open(path, framework="pt") as handle, torch.no_grad():
            facts = facts_of(handle)
            scalars |= facts["scalars"]
            for tensor_name in handle.keys():  # noqa: SIM118 (no mapping)
                kind, _, name = tensor_name.partition("/")
                if kind == _BUFFER and name in buffers:
                    buffers[name].copy_(handle.get_tensor(tensor_name))
                if kind in (_BUFFER, _RNG) or name not in slots or (weights_only and kind != _MASTER):
                    continue
                slot = slots[name]
                piece = handle.get_slice(tensor_name)
                begin = facts["starts"][name]
                low = max(slot.start, begin)
                high = min(slot.start + slot.numel, begin + piece.get_shape()[0])
                if low >= high:
                    continue
                content = piece[low - begin : high - begin]
                target = slot.of(slot.owner if kind == _MASTER else _state(layout, slot, kind, content.dtype))
                target.narrow(0, low - slot.start, high - low).copy_(content)
                filled[kind, name] = filled.get((kind, name), 0) + high - low
    for name, slot in slots.items():
        for kind in {_MASTER, *(kind for kind, other in filled if other == name)}:
            if filled.get((kind, name), 0) != slot.numel:
                raise DataError(f"checkpoint {folder}: it lacks a part of {kind}/{name}; use an earlier checkpoint")
    return scalars


def _state(layout: Layout, slot: Slot, state_key: str, dtype: Any) -> Any:
    """The optimizer's own tensor of this key, which it would make at its first step."""
    import torch

    state = layout.optimizer.state[slot.owner]
    if state_key not in state:
        state[state_key] = torch.zeros_like(slot.owner, dtype=dtype, requires_grad=False)
    return state[state_key]


def _restore_rng(folder: Path, rank: int, seed: int, position: int) -> None:
    from safetensors import safe_open

    path = folder / _rank_file(rank)
    if not path.exists():
        seed_rank(seed, rank, position)
        return
    with safe_open(path, framework="pt") as handle:
        prefix = f"{_RNG}/"
        names = [name for name in handle.keys() if name.startswith(prefix)]  # noqa: SIM118 (no mapping)
        tensors = {name.removeprefix(prefix): handle.get_tensor(name) for name in names}
        set_rng_state(tensors, facts_of(handle)["rng"])


def _check_same(layout: Layout, state: Mapping[str, Any]) -> None:
    saved = {name: tuple(shape) for name, shape in state["shapes"].items()}
    if saved != layout.shapes:
        other = sorted(
            name for name in saved.keys() | layout.shapes.keys() if saved.get(name) != layout.shapes.get(name)
        )
        raise SpecError(
            f"model, method: the checkpoint is of another model or method: {', '.join(other[:4])} "
            f"{'differs' if len(other) == 1 else 'differ'} ({len(other)} of {len(layout.shapes)} trained parameters); "
            "use those that it was written with, or start over with --restart"
        )
    if state["optimizer"] != type(layout.optimizer).__name__:
        raise SpecError(
            f"trainer.optim: the checkpoint was written with {state['optimizer']}, and the job uses "
            f"{type(layout.optimizer).__name__}; use the same, or start over with --restart"
        )


def _buffers(engine: Any) -> dict[str, Any]:
    """What a model keeps beside parameters and saves, by name."""
    module = getattr(engine, "module", engine)
    return {
        f"{place}.{name}" if place else name: buffer
        for place, each in module.named_modules()
        for name, buffer in each._buffers.items()
        if buffer is not None and name not in each._non_persistent_buffers_set
    }


def _rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def _write_json(path: Path, content: Any) -> Entry:
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    return entry_of(path.parent, path.name)
