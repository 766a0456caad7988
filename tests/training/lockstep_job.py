"""What the members of a process group do in the tests of lockstep: unequal numbers of forward passes."""

from __future__ import annotations

import contextlib

import torch

from hfray.errors import DataError
from hfray.training.collective import OutOfStep, together
from hfray.training.lockstep import in_lockstep
from tests.training.state_jobs import VOCABULARY, build


def run_unequal(rank: int, world_size: int, method: str) -> list[float]:
    """Rank r makes 3 r passes over rows of growing length; the last rank's sums of logits are those that count."""
    model = build({"stage": 3, "precision": "fp32", "method": method}, world_size).module
    model.eval()
    sums = []
    with torch.no_grad(), in_lockstep(model, torch.device("cpu"), needed=True):
        for number in range(3 * (rank + 1 if world_size == 1 else rank)):
            ids = torch.arange(2 + number) % VOCABULARY
            sums.append(float(model(input_ids=ids[None]).logits.double().sum()))
    # All are here again: one more pass of each needs no word.
    sums.append(float(model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.double().sum()))
    return sums


def run_failing(rank: int, world_size: int, passes: list[int]) -> list[object]:
    """Rank r makes passes[r] passes, and the last rank then finds its data damaged. Gives what each is told."""
    model = build({"stage": 3, "precision": "fp32", "method": "full"}, world_size).module
    model.eval()
    told = ""
    try:
        with together("evaluation"), torch.no_grad(), in_lockstep(model, torch.device("cpu"), needed=True):
            for number in range(passes[rank]):
                model(input_ids=torch.arange(2 + number)[None] % VOCABULARY)
            if rank == world_size - 1:
                raise DataError("part-3 is damaged")
    except DataError as error:
        told = str(error)
    # They can still work together.
    return [told, float(model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.double().sum())]


def run_broken(rank: int, world_size: int, caught: bool) -> None:
    """The first rank fails in the middle of its second pass; caught: and tries it again, as an engine does that halves
    its batch when memory is short."""
    model = build({"stage": 3, "precision": "fp32", "method": "full"}, world_size).module
    model.eval()
    passes = 0

    def fail(module: torch.nn.Module, args: object) -> None:
        if rank == 0 and passes == 1:
            raise MemoryError("no memory")

    list(model.modules())[-1].register_forward_pre_hook(fail)
    with together("evaluation"), torch.no_grad(), in_lockstep(model, torch.device("cpu"), needed=True):
        for _ in range(3):
            try:
                model(input_ids=torch.ones(1, 4, dtype=torch.long))
            except MemoryError:
                if not caught:
                    raise
                with contextlib.suppress(OutOfStep):
                    model(input_ids=torch.ones(1, 2, dtype=torch.long))
                return
            passes += 1
