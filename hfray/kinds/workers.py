"""Makes the worker of one actor from a checked job. The driver makes the factory; it travels, and works over there.

Knows tasks, models and engines; not Ray, not which shards there are to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hfray.data.ledger import Ledger
from hfray.data.plan import Plan
from hfray.errors import EngineError
from hfray.inference.model_use import load_use
from hfray.inference.predictor import Predictor
from hfray.inference.receipt import Tick
from hfray.inference.worker import ShardWorker
from hfray.kinds.check import Checked
from hfray.kinds.rows import row_reader
from hfray.kinds.tasks import adapters_of_rows, make_task


class WorkerFactory:
    """Picklable; called once in every actor."""

    def __init__(self, checked: Checked, plan: Plan, ledger: Ledger) -> None:
        self._job = checked.job
        self._model = checked.model
        self._plan = plan
        self._ledger = ledger

    def __call__(self, tick: Callable[[Tick], None], loaded: Callable[[dict[str, Any]], None]) -> ShardWorker:
        import torch

        torch.set_num_threads(max(1, int(self._job.workers.cpus)))
        return ShardWorker(
            self._plan,
            self._ledger,
            lambda: self._predictor(loaded),
            reader=row_reader(self._job, self._plan),
            tick=tick,
        )

    def reader(self) -> ShardWorker:
        """A worker that only adopts parts that are there; it has no model."""
        return ShardWorker(self._plan, self._ledger, _no_predictor, reader=row_reader(self._job, self._plan))

    def _predictor(self, loaded: Callable[[dict[str, Any]], None]) -> Predictor:
        gpus = self._job.workers.gpus
        model = load_use(self._model, device_share=min(1.0, gpus) or 1.0, loaded=loaded)
        task = make_task(self._job, model.processor, model.info)
        return Predictor(task, model.engine, seed=self._job.seed, adapters=adapters_of_rows(self._job))


def _no_predictor() -> Predictor:
    raise EngineError("a part is read, not computed, here; this is a mistake in hfray")
