"""The function that Ray Train runs on every worker. Knows Ray Train's context; what is done in it is `training.run`."""

from __future__ import annotations

import time
from typing import Any

from hfray.errors import HfrayError
from hfray.training import environment
from hfray.training.setup import TrainSetup

TICK_S = 0.5


def train_worker(config: dict[str, Any]) -> Any:
    """config: `setup`, a `TrainSetup`, and `board`, the actor that looks at the run (`kinds.training_board`).

    Gives `run`'s outcome. What it raises is told to the board first: Ray Train would start the workers anew, and what
    is wrong with the job or its data is wrong again.
    """
    import ray
    import ray.train

    setup: TrainSetup = config["setup"]
    board = config["board"]
    context = ray.train.get_context()
    environment.prepare(on_gpu=setup.on_gpu, local_world_size=context.get_local_world_size())
    import torch

    from hfray.training.evaluation import Rank
    from hfray.training.run import run

    rank, world_size = context.get_world_rank(), context.get_world_size()
    if setup.on_gpu:
        from ray.train.torch import get_device

        device = get_device()
    else:
        device = torch.device("cpu")
    if rank == 0:
        ray.get(board.started.remote(world_size))
    try:
        return run(setup, Rank(rank, world_size, device), _Ticker(board))
    except HfrayError as error:
        ray.get(board.failed.remote(error))
        raise


class _Ticker:
    """Tells the board how far the run is, now and then."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self._told_at = 0.0

    def __call__(self, position: Any, loss: float | None) -> None:
        now = time.monotonic()
        if now - self._told_at >= TICK_S:
            self._told_at = now
            self._board.tick.remote(position.step, position.counts.tokens, loss)
