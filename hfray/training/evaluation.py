"""How good a model is on rows that it does not learn: the loss on their tokens, and the task's own metrics on the rows
themselves, each row once over all ranks. Knows tokens, rows and the predictor that scoring holds too, so that a metric
is the same number there; not when it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from hfray.engines.batch import BatchEngine
from hfray.errors import RowError
from hfray.inference.predictor import Predictor
from hfray.models.adapter import body_of
from hfray.models.load import LoadedModel, ModelFacts
from hfray.tasks.base import ModelInfo, Processor, Task
from hfray.training.collective import gather_json, together
from hfray.training.items import num_items, shifts_labels
from hfray.training.loading import Collate, evaluation_loader
from hfray.training.lockstep import in_lockstep
from hfray.training.order import evaluation_share
from hfray.training.setup import ValidationRows
from hfray.training.tokens import TokenExamples
from hfray.types import Row

PERPLEXITY_TASKS = ("text-generation", "fill-mask")


@dataclass(frozen=True, slots=True)
class Rank:
    """Which of how many."""

    rank: int
    world_size: int
    device: torch.device


@dataclass(slots=True)
class Evaluator:
    """What one rank needs to take its share of an evaluation."""

    rank: Rank
    examples: TokenExamples
    collate: Collate
    micro_batch_size: int
    task: Task | None
    """With the model's labels; None where no metric but the loss is computed."""
    rows: ValidationRows | None
    processor: Processor
    info: ModelInfo
    pad_token_id: int
    perplexity: bool = False

    def evaluate(self, model: Any, *, gathered: bool) -> dict[str, float]:
        """Metrics by name, the same on all ranks. model: a Transformers or PEFT model; gathered: whether its weights
        are divided among the ranks (ZeRO-3). Raises HfrayError on all ranks if one of them does."""
        was_training = model.training
        model.eval()
        try:
            metrics = {"loss": self._loss(model, gathered=gathered)}
            if self.perplexity:
                metrics["perplexity"] = math.exp(min(metrics["loss"], 700.0))
            if self.task is not None and self.rows is not None:
                metrics |= self._task_metrics(model, gathered=gathered)
            return metrics
        finally:
            model.train(was_training)

    def _loss(self, model: Any, *, gathered: bool) -> float:
        share = evaluation_share(len(self.examples), self.rank.world_size, self.rank.rank)
        loader = evaluation_loader(self.examples, share, self.micro_batch_size, self.collate)
        sums = torch.zeros(2, dtype=torch.float64, device=self.rank.device)
        shifted = shifts_labels(model)
        with together("evaluation"), torch.no_grad(), in_lockstep(model, self.rank.device, needed=gathered):
            for batch in loader:
                items = num_items(batch, shifted=shifted)
                if not items:
                    continue
                inputs = {
                    key: value.to(self.rank.device) if isinstance(value, torch.Tensor) else value
                    for key, value in batch.items()
                }
                sums += torch.stack([model(**inputs).loss.double() * items, torch.tensor(items).to(sums)])
        if dist.is_initialized():
            dist.all_reduce(sums)
        return float(sums[0] / sums[1]) if sums[1] else math.nan

    def _task_metrics(self, model: Any, *, gathered: bool) -> dict[str, float]:
        pairs: list[tuple[Any, Any]] = []
        # In this order: what is told is a collective call, for which all must have left the lockstep.
        # The predictor calls the body, past an adapter's model around it.
        with together("evaluation"), in_lockstep(body_of(model), self.rank.device, needed=gathered):
            pairs = self._answers(model)
        everybody = [pair for of_rank in gather_json(pairs) for pair in of_rank]
        metrics: dict[str, float] = {}
        with together("evaluation"):
            if self.task is not None and self.rank.rank == 0 and everybody:
                metrics = self.task.metrics([result for result, _ in everybody], [each for _, each in everybody])
        return dict(gather_json(metrics)[0])

    def _answers(self, model: Any) -> list[tuple[Any, Any]]:
        """Results and references of this rank's rows, in order."""
        rows = self.rows
        if rows is None or self.task is None:
            return []
        found: list[tuple[Any, Any]] = []
        engine = BatchEngine(self._loaded(model), merge_batches=0)
        with closing(engine):
            predictor = Predictor(self.task, engine)
            for chunk, positions in self._own_rows(rows):
                results = predictor.predict([row for row, _ in chunk], positions)
                found += [
                    (result, reference)
                    for result, (_, reference) in zip(results, chunk, strict=True)
                    if not isinstance(result, RowError)
                ]
        return found

    def _own_rows(self, rows: ValidationRows) -> Iterator[tuple[list[tuple[Row, Any]], list[int]]]:
        """This rank's rows with their references, a piece of a shard at a time, and their numbers in the input."""
        share = evaluation_share(rows.plan.num_rows, self.rank.world_size, self.rank.rank)
        wanted = (*rows.columns, rows.reference)
        for number in range(rows.plan.num_shards):
            shard = rows.plan.shard(number)
            if shard.first_position >= share.stop or shard.first_position + shard.num_rows <= share.start:
                continue
            read = rows.reader.read(shard, wanted)
            kept = [
                (place, position)
                for place, position in enumerate(read.positions)
                if position in share and place not in read.errors and read.rows[place].get(rows.reference) is not None
            ]
            if kept:
                chunk: list[tuple[Row, Any]] = [
                    ({name: read.rows[place].get(name) for name in rows.columns}, read.rows[place][rows.reference])
                    for place, _ in kept
                ]
                yield chunk, [position for _, position in kept]

    def _loaded(self, model: Any) -> LoadedModel:
        """The model as it is now, the way an engine takes it."""
        body = body_of(model)
        return LoadedModel(
            model=body,
            dense=None,
            pad_token_id=self.pad_token_id,
            device=self.rank.device,
            processor=self.processor,
            info=self.info,
            facts=ModelFacts(self.info.name, None, 0, str(body.dtype), "none", str(self.rank.device), 0, 0),
        )
