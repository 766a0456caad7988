"""DeepSpeed's layouts are tested with DeepSpeed in `test_state`."""

from __future__ import annotations

import pytest
import torch

from hfray.errors import EngineError
from hfray.training.slots import Slot, layout_of


def test_a_module_alone_has_each_trained_parameter_whole():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    model[0].bias.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [{"params": [model[1].weight, model[1].bias]}, {"params": [model[0].weight, model[0].bias]}]
    )
    layout = layout_of(model, optimizer)
    assert layout.groups == (("1.weight", "1.bias"), ("0.weight",))
    assert layout.shapes == {"1.weight": (1, 2), "1.bias": (1,), "0.weight": (2, 3)}
    assert layout.replicated
    assert [(slot.name, slot.group, slot.start, slot.numel, slot.offset) for slot in layout.slots] == [
        ("1.weight", 0, 0, 2, 0), ("1.bias", 0, 0, 1, 0), ("0.weight", 1, 0, 6, 0),
    ]  # fmt: skip
    assert layout.slots[2].owner is model[0].weight


def test_a_slot_is_a_view_of_its_owner():
    owner = torch.arange(12.0).view(3, 4)
    slot = Slot("a", 0, 100, 5, owner, 4)
    slot.of(owner).zero_()
    assert owner.view(-1).tolist() == [0, 1, 2, 3, 0, 0, 0, 0, 0, 9, 10, 11]


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_are_all_of_a_slot_once(parts):
    slot = Slot("a", 0, 100, 5, None, 4)
    found = [slot.part(number, parts) for number in range(parts)]
    elements = [each for part in found for each in range(part.start, part.start + part.numel)]
    assert elements == list(range(100, 105))
    assert all(part.start - part.offset == 96 for part in found)
    assert max(part.numel for part in found) - min(part.numel for part in found) <= 1


def test_an_optimizer_that_is_not_known_is_refused():
    with pytest.raises(EngineError, match=r"OneBitAdam .* use adamw_torch"):
        layout_of(torch.nn.Linear(1, 1), type("OneBitAdam", (), {})())
