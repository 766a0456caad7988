"""What a trainer asks of whoever runs it: checkpoints, evaluations, an eye on it. A contract; knows nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from hfray.training.position import Position

if TYPE_CHECKING:
    from hfray.training.trainer import RunTrainer


class Surroundings(Protocol):
    """What a trainer asks of whoever runs it. All of it is called on all ranks at the same step."""

    def restore(self, trainer: RunTrainer) -> None:
        """Sets weights and optimizer as the checkpoint of the trainer's position has them."""
        ...

    def save(self, trainer: RunTrainer) -> None:
        """Makes a checkpoint."""
        ...

    def evaluate(self, trainer: RunTrainer) -> dict[str, float]:
        """Metrics by name, the same on all ranks."""
        ...

    def tick(self, position: Position, loss: float | None) -> None:
        """Tells how far the run is, if anybody looks; called after every step, on rank 0."""
        ...
