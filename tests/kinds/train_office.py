"""Training jobs whose workers are real processes that talk over gloo, without Ray around them: what Ray Train does is
left out, nothing else."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

import hfray.training.run
import hfray.training.saving
from hfray.kinds import train, train_setup
from hfray.kinds.progress import Progress
from hfray.kinds.report import Report
from hfray.kinds.training_board import Standing
from hfray.spec.train import TrainJob
from hfray.training.evaluation import Rank
from hfray.training.run import Outcome, run
from hfray.training.setup import TrainSetup
from tests.kinds import in_process
from tests.training.process_groups import run_group


class TrainOffice:
    """Runs training jobs in a folder. `world_size` workers at a time."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.world_size = 2
        self.groups = 0
        self.setups: list[TrainSetup] = []
        """What the groups were given."""
        self.stop_after: int | Literal["training", "memory", "disk"] | None = None
        """Steps after which all workers are killed, once; or when all are done and nothing is published yet; or what
        there is no more of: on rank 0 after the first step, or for the result."""
        in_process.use(monkeypatch, self._run_shards)
        monkeypatch.setattr(train.TrainRun, "_fit", lambda _, setup, watch: self._fit(setup))
        monkeypatch.setattr(
            train,
            "watched_training",
            lambda *args: contextlib.nullcontext(SimpleNamespace(board=None, standing=Standing())),
        )
        monkeypatch.setattr(train_setup, "worker_memory", lambda *args: (4 << 30, 0))

    def write(self, name: str, **columns: Any) -> str:
        path = self.folder / name
        pq.write_table(pa.table(columns), path)
        return str(path)

    def job(self, **changes: Any) -> TrainJob:
        spec: dict[str, Any] = {
            "kind": "train",
            "name": "office",
            "output": {"path": str(self.out)},
            "global_batch_size": 8,
            "workers": {"min": self.world_size},
        }
        return TrainJob.model_validate(spec | changes)

    def run(self, *, restart: bool = False, **changes: Any) -> Report:
        with Progress(Console(file=io.StringIO()), quiet=True) as progress:
            made = train.TrainRun(self.job(**changes), progress, job_path="job.yaml", log_path="", debug=False)
            return made.run(restart=restart, retry_errors=False)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "hfray.json").read_text())
        return found

    def _fit(self, setup: TrainSetup) -> Outcome:
        self.groups += 1
        self.setups.append(setup)
        stop_after, self.stop_after = self.stop_after, None
        results = run_group(run_rank, self.world_size, (setup, stop_after), self.folder / f"group-{self.groups}")
        return Outcome(**results[0])

    @staticmethod
    def _run_shards(cluster: Any, shards: Sequence[int], make_worker: Any, workers: Any, **how: Any) -> Iterator[Any]:
        worker = make_worker(lambda tick: None, lambda facts: None)
        for shard in shards:
            yield getattr(worker, how["method"])(shard)


def run_rank(rank: int, world_size: int, argument: tuple[TrainSetup, int | str | None]) -> Any:
    """In a worker."""
    setup, stop_after = argument

    def tick(position: Any, loss: float | None) -> None:
        if stop_after == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if isinstance(stop_after, int) and position.step >= stop_after:
            raise KeyboardInterrupt

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    if stop_after == "training":
        hfray.training.run.publish = killed  # type: ignore[assignment]  # the process ends there

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    if stop_after == "disk":
        hfray.training.saving.save_tokenizer = full  # type: ignore[assignment]

    outcome = run(setup, Rank(rank, world_size, torch.device("cpu")), tick)
    return None if outcome is None else asdict(outcome)
