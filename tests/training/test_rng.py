from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from hfray.training.rng import rng_state, seed_rank, set_rng_state


@pytest.fixture(autouse=True)
def _left_as_they_were():
    tensors, facts = rng_state()
    yield
    set_rng_state(tensors, facts)


def draw() -> list[float]:
    return [
        random.random(),
        random.gauss(),
        float(np.random.random()),
        float(np.random.normal()),
        *torch.rand(3).tolist(),
        *torch.nn.functional.dropout(torch.ones(8), 0.5, training=True).tolist(),
    ]


def test_draws_go_on_where_they_were():
    draw()  # an odd number of normal draws leaves one of a pair over
    tensors, facts = rng_state()
    tensors, facts = {name: value.clone() for name, value in tensors.items()}, json.loads(json.dumps(facts))
    expected = [draw(), draw()]
    seed_rank(1, 2, 3)
    set_rng_state(tensors, facts)
    assert [draw(), draw()] == expected


def test_a_new_rank_has_draws_of_its_own_that_follow_from_where_the_run_is():
    found = {}
    for place in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)]:
        seed_rank(*place)
        drawn = draw()
        assert found.setdefault(place, drawn) == drawn
    assert len({tuple(each) for each in found.values()}) == 4
