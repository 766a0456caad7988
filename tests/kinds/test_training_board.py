"""What the driver is told of a training run, by the actor's own class and through a thread that reads it."""

from __future__ import annotations

import pickle

from hfray.errors import SpecError
from hfray.kinds.training_board import Standing, TrainingBoard


def test_the_board_remembers_the_last_tick_and_counts_groups() -> None:
    board = TrainingBoard()
    assert board.standing() == Standing()
    board.started(2)
    board.tick(3, 300, 0.5)
    board.tick(4, 400, 0.25)
    board.started(1)
    assert board.standing() == Standing(step=4, tokens=400, loss=0.25, workers=1, groups=2)


def test_an_error_travels() -> None:
    board = TrainingBoard()
    board.failed(SpecError("trainer.learning_rate: too high"))
    found = pickle.loads(pickle.dumps(board.standing()))  # noqa: S301 (our own, as Ray sends it)
    assert isinstance(found.error, SpecError)
    assert str(found.error) == "trainer.learning_rate: too high"
