"""The factory of workers as it travels: pickled on the driver, called in an actor. Ray itself does not run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.cloudpickle as cloudpickle
from transformers import pipeline

from hfray.data.base import DEFAULT_OPTIONS
from hfray.data.formats import index_file
from hfray.data.ledger import Ledger
from hfray.data.listing import list_files
from hfray.data.parts import decode_part
from hfray.data.plan import Plan
from hfray.engines.batch import BatchEngine
from hfray.engines.fake import FakeEngine
from hfray.errors import EngineError, HfrayError
from hfray.inference.receipt import Receipt, ShardFailure, Tick
from hfray.inference.worker import ShardWorker
from hfray.kinds.check import check_job
from hfray.kinds.workers import WorkerFactory
from hfray.spec.score import ScoreJob
from tests.models.support import save_model

TEXTS = [f"text {number}" for number in range(25)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@dataclass
class Site:
    """An output over 25 rows in shards of 10, the factory of its workers, and what they said."""

    ledger: Ledger
    factory: WorkerFactory
    ticks: list[Tick] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def worker(self) -> Iterator[ShardWorker]:
        """A worker as an actor makes it, of a factory that has travelled."""
        factory = cloudpickle.loads(cloudpickle.dumps(self.factory))
        worker: ShardWorker = factory(self.ticks.append, self.facts.append)
        try:
            yield worker
        finally:
            worker.predictor.engine.close()

    def rows(self, shard: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = decode_part(self.ledger.read_part(shard), "parquet", "part").to_pylist()
        return rows


def site(folder: Path, model: Path, /, *, where: str | None = None, **changes: Any) -> Site:
    path = folder / "in.parquet"
    pq.write_table(pa.table({"n": list(range(25)), "body": TEXTS}), path)
    spec: dict[str, Any] = {
        "name": "site",
        "model": {"path": str(model)},
        "task": {"name": "text-classification", "top_k": "all"},
        "input": {"path": str(path), "columns": {"text": "body"}, "where": where},
        "output": {"path": str(folder / "out")},
    }
    checked = check_job(ScoreJob.model_validate(spec | changes))
    (file,) = list_files((str(path),), "parquet")
    ledger = Ledger(str(folder / "out"), "parquet", "f" * 64)
    ledger.open({"fingerprint": "f" * 64})
    return Site(ledger, WorkerFactory(checked, Plan([index_file(file, 10, str(folder), DEFAULT_OPTIONS)]), ledger))


def receipt_of(answer: Receipt | ShardFailure) -> Receipt:
    assert isinstance(answer, Receipt)
    return answer


def test_a_worker_with_the_fake_engine_needs_no_weights(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    each = site(tmp_path, folder, engine={"name": "fake"})
    (folder / "model.safetensors").unlink()
    with each.worker() as worker:
        receipt = receipt_of(worker.score(1))
        assert isinstance(worker.predictor.engine, FakeEngine)
    assert (receipt.shard, receipt.rows, receipt.failed, receipt.adopted) == (1, 10, 0, False)
    assert [row["n"] for row in each.rows(1)] == list(range(10, 20))
    assert {each["label"] for row in each.rows(1) for each in row["result"]} == {"cold", "warm", "hot"}
    assert sum(tick.rows for tick in each.ticks) == 10
    assert each.facts == []


def test_a_worker_with_a_model_gives_the_scores_of_the_pipeline(tmp_path: Path, model: Path) -> None:
    each = site(tmp_path, model, model={"path": str(model), "dtype": "float32"})
    with each.worker() as worker:
        receipt = receipt_of(worker.score(2))
        assert isinstance(worker.predictor.engine, BatchEngine)
    assert (receipt.rows, receipt.failed) == (5, 0)
    assert receipt.tokens > 0
    wanted = pipeline("text-classification", model=str(model), device="cpu")(TEXTS[20:], top_k=None)
    for row, scores in zip(each.rows(2), wanted, strict=True):
        assert [answer["label"] for answer in row["result"]] == [score["label"] for score in scores]
        assert [answer["score"] for answer in row["result"]] == pytest.approx(
            [score["score"] for score in scores], abs=1e-5
        )
    assert [facts["path"] for facts in each.facts] == [str(model)], "told once, when it is loaded"


def test_the_jobs_own_labels_and_expression_travel_too(tmp_path: Path, model: Path) -> None:
    task = {"name": "text-classification", "labels": ["a", "b", "c"]}
    each = site(tmp_path, model, where="n >= 3 and n < 5", task=task, engine={"name": "fake"})
    with each.worker() as worker:
        assert receipt_of(worker.score(0)).rows == 2
    assert [row["n"] for row in each.rows(0)] == [3, 4]
    assert {row["result"][0]["label"] for row in each.rows(0)} <= {"a", "b", "c"}


def test_a_reader_adopts_and_refuses_to_compute(tmp_path: Path, model: Path) -> None:
    each = site(tmp_path, model, engine={"name": "fake"})
    with each.worker() as worker:
        receipt = receipt_of(worker.score(0))
    reader = each.factory.reader()
    adopted = receipt_of(reader.score(0))
    assert adopted.adopted
    assert (adopted.rows, adopted.sha256) == (receipt.rows, receipt.sha256)
    with pytest.raises(EngineError, match="a part is read, not computed, here"):
        reader.score(1)
    assert not each.ledger.has_part(1)


def test_a_model_that_is_gone_on_the_workers_machine_is_said(tmp_path: Path, model: Path) -> None:
    folder = save_model(tmp_path / "model")
    each = site(tmp_path, folder)
    (folder / "model.safetensors").unlink()
    factory = cloudpickle.loads(cloudpickle.dumps(each.factory))
    with pytest.raises(HfrayError, match=r"model"):
        factory(each.ticks.append, each.facts.append).score(0)
    assert not each.ledger.has_part(0)
