"""Makes the worker of one actor from a checked job. The driver makes the factory; it travels, and works over there.

Knows tasks, models and engines; not Ray, not which shards there are to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hfray.data.ledger import Ledger
from hfray.data.plan import Plan
from hfray.errors import EngineError
from hfray.inference.predictor import Predictor
from hfray.inference.receipt import Tick
from hfray.inference.worker import ShardWorker
from hfray.kinds.check import Checked
from hfray.kinds.engines import make_engine
from hfray.kinds.rows import row_reader
from hfray.kinds.tasks import adapters_of_rows, make_task
from hfray.spec.sections import FakeEngineSpec


class WorkerFactory:
    """Picklable; called once in every actor."""

    def __init__(self, checked: Checked, plan: Plan, ledger: Ledger) -> None:
        self._job = checked.job
        self._source = checked.source
        self._adapter = checked.adapter
        self._labels = checked.labels
        self._adapters = checked.adapters
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
        from hfray.tasks import TASKS

        task_class = TASKS[self._job.task.name]
        source = self._source.located()
        adapter = None if self._adapter is None else self._adapter.located()
        by_row = adapters_of_rows(self._job)
        if isinstance(self._job.engine, FakeEngineSpec):
            from hfray.engines.fake import FakeEngine
            from hfray.models.info import model_info
            from hfray.models.load import load_processor
            from hfray.models.resolve import config_of

            processor = load_processor(source, task_class, adapter=adapter)
            config = config_of(source, adapter)
            info = model_info(source, config, tokenizer=processor.tokenizer, labels=self._labels)
            fake = FakeEngine(num_labels=len(info.labels), seconds_per_item=self._job.engine.seconds_per_item)
            return Predictor(make_task(self._job, processor, info), fake, seed=self._job.seed, adapters=by_row)
        from hfray.models.load import load_model

        model = load_model(
            self._job.model, task_class, labels=self._labels, source=source, adapter=adapter, adapters=self._adapters
        )
        engine = make_engine(self._job, model)
        loaded(model.facts.as_dict())
        return Predictor(
            make_task(self._job, model.processor, model.info), engine, seed=self._job.seed, adapters=by_row
        )


def _no_predictor() -> Predictor:
    raise EngineError("a part is read, not computed, here; this is a mistake in hfray")
