from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from hfray.errors import SpecError
from hfray.training.hyperparameters import (
    counters_of,
    groups_of,
    restore_counters,
    restore_groups,
    restore_scalars,
    scalars_of,
)
from hfray.training.slots import Layout, Slot, layout_of


def made(first: str = "weight", lr: object = 0.1, **values: object) -> Layout:
    model = torch.nn.Linear(3, 2)
    groups = [
        {"params": [model.weight], "lr": lr, "weight_decay": 0.01} | values,
        {"params": [model.bias], "lr": 0.3, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups if first == "weight" else groups[::-1])
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return layout_of(model, optimizer)


def test_values_return_to_the_group_of_their_parameters_whatever_its_place():
    saved = json.loads(json.dumps(groups_of(made(betas=(0.8, 0.9)))))
    layout = made("bias", lr=9.0, weight_decay=9.0)
    restore_groups(layout, saved)
    bias, weight = layout.optimizer.param_groups
    assert (weight["lr"], weight["weight_decay"], weight["betas"]) == (0.1, 0.01, (0.8, 0.9))
    assert (bias["lr"], bias["weight_decay"], bias["betas"]) == (0.3, 0.0, (0.9, 0.999))
    assert weight["params"][0].shape == (2, 3)


def test_how_it_is_computed_is_not_restored():
    saved = groups_of(made(foreach=True))
    assert not saved[0]["values"].keys() & {"params", "foreach", "fused", "capturable", "differentiable"}


def test_a_rate_that_is_a_tensor_stays_one():
    rate = torch.tensor(5.0)
    layout = made()
    layout.optimizer.param_groups[0]["lr"] = rate
    restore_groups(layout, groups_of(made()))
    assert layout.optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.1)


def test_other_groups_are_refused():
    saved = groups_of(made())
    saved[0]["parameters"], saved[1]["parameters"] = ["weight", "bias"], []
    with pytest.raises(SpecError, match="a group of hyperparameters now"):
        restore_groups(made(), saved)


def test_step_counts_are_what_they_were():
    layout = made()
    layout.optimizer.state[layout.slots[0].owner]["step"] += 6
    saved = json.loads(json.dumps(scalars_of(layout)))
    assert {name: set(values) for name, values in saved.items()} == {"weight": {"step"}, "bias": {"step"}}
    other = made()
    restore_scalars(other, saved)
    steps = [other.optimizer.state[slot.owner]["step"] for slot in other.slots]
    assert [(step.item(), step.dtype, step.dim()) for step in steps] == [(7, torch.float32, 0), (1, torch.float32, 0)]


def test_one_count_for_two_parameters_of_different_counts_is_refused():
    owner = torch.nn.Parameter(torch.zeros(8))
    optimizer = torch.optim.AdamW([owner])
    slots = (Slot("weight", 0, 0, 6, owner, 0), Slot("bias", 0, 0, 2, owner, 6))
    layout = Layout(slots, (("weight", "bias"),), {}, optimizer, False, None, lambda: None)
    saved = {name: {"step": {"value": 7.0, "dtype": "float32"}} for name in ("weight", "bias")}
    restore_scalars(layout, saved)
    assert optimizer.state[owner]["step"].item() == 7
    saved["bias"] = {"step": {"value": 6.0, "dtype": "float32"}}
    with pytest.raises(SpecError, match="weight and bias have been trained for different numbers of steps"):
        restore_scalars(layout, saved)
    # One that never had a gradient has no count, and takes the other's.
    restore_scalars(layout, saved | {"bias": {}})


def test_counts_and_the_scale_of_fp16_return():
    def there(steps: int, scale: float, accumulation: int) -> tuple[SimpleNamespace, Layout]:
        engine = SimpleNamespace(
            global_steps=steps, global_samples=steps * 8, skipped_steps=1, micro_steps=0,
            gradient_accumulation_steps=lambda: accumulation,
        )  # fmt: skip
        scaler = SimpleNamespace(
            cur_scale=scale, cur_iter=steps, last_overflow_iter=2, cur_hysteresis=1, scale_window=5
        )
        return engine, Layout((), (), {}, None, False, scaler, lambda: None)

    engine, layout = there(10, 2.0**15, 4)
    saved = json.loads(json.dumps(counters_of(engine, layout)))
    engine, layout = there(0, 1.0, 2)
    restore_counters(engine, layout, saved)
    assert (engine.global_steps, engine.global_samples, engine.skipped_steps, engine.micro_steps) == (10, 80, 1, 20)
    assert (layout.scaler.cur_scale, layout.scaler.cur_iter, layout.scaler.cur_hysteresis) == (2.0**15, 10, 1)
