"""The factory of workers as it travels: pickled on the driver, called in an actor. Ray itself does not run."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.cloudpickle as cloudpickle
from transformers import AutoModelForCausalLM, pipeline

from hfray.data.base import DEFAULT_OPTIONS
from hfray.data.formats import index_file
from hfray.data.ledger import Ledger
from hfray.data.listing import list_files
from hfray.data.parts import decode_part
from hfray.data.plan import Plan
from hfray.engines.batch import BatchEngine
from hfray.engines.continuous.engine import ContinuousEngine
from hfray.engines.fake import FakeEngine
from hfray.errors import EngineError, HfrayError
from hfray.inference.receipt import Receipt, ShardFailure, Tick
from hfray.inference.worker import ShardWorker
from hfray.kinds.check import check_job
from hfray.kinds.workers import WorkerFactory
from hfray.spec.score import ScoreJob
from hfray.types import Generated, GenerationParams, Item
from tests.models.lora_support import save_lora
from tests.models.support import save_decoder, save_model

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


def site(folder: Path, model: Path, /, *, where: str | None = None, table: Any = None, **changes: Any) -> Site:
    path = folder / "in.parquet"
    pq.write_table(pa.table(table or {"n": list(range(25)), "body": TEXTS}), path)
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
    (folder / "model.safetensors").write_bytes(b"no weights")
    each = site(tmp_path, folder, engine={"name": "fake"})
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


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(tmp_path_factory.mktemp("decoder"))


def generation(folder: Path, decoder: Path, **changes: Any) -> Site:
    """The site's 25 texts as prompts; lengths differ, because [SEP] ends some."""
    folder.mkdir()
    spec: dict[str, Any] = {
        "task": {"name": "text-generation", "max_new_tokens": 20},
        "model": {"path": str(decoder), "dtype": "float32"},
        "input": {"path": str(folder / "in.parquet"), "columns": {"prompt": "body"}},
    }
    return site(folder, decoder, **spec | changes)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.3, "num_return_sequences": 2}], ids=["greedy", "sampled"])
def test_both_engines_write_the_same_text(tmp_path: Path, decoder: Path, sampling: dict[str, Any]) -> None:
    """Whatever shares the batch: one writes shard by shard, the other two at once, with too little cache for both."""
    task = {"name": "text-generation", "max_new_tokens": 70, **sampling}
    one = generation(tmp_path / "one", decoder, task=task, engine={"name": "batch"})
    with one.worker() as worker:
        for shard in range(3):
            receipt_of(worker.score(shard))
    tight = {"name": "continuous", "cache_gb": 300_000 / 2**30, "max_step_tokens": 24}
    other = generation(tmp_path / "other", decoder, task=task, engine=tight)
    with other.worker() as worker, ThreadPoolExecutor(2) as threads:
        receipts = list(threads.map(worker.score, [2, 0, 1]))
        engine = worker.predictor.engine
        assert isinstance(engine, ContinuousEngine)
        assert engine.scheduler.preemptions > 0
    assert [receipt_of(each).failed for each in receipts] == [0, 0, 0]
    for shard in range(3):
        assert other.ledger.read_part(shard) == one.ledger.read_part(shard)
    texts = [row["result"] for shard in range(3) for row in one.rows(shard)]
    assert len({str(text) for text in texts}) > 15


def test_a_batch_does_not_drain_where_a_shard_ends(tmp_path: Path, decoder: Path) -> None:
    """The engine is held until both shards are queued, so that nothing depends on which thread is faster."""
    each = generation(tmp_path / "job", decoder, engine={"name": "continuous", "max_running": 6})
    queued = threading.Event()

    def hold(tokens: Any) -> bool:
        queued.wait(60)
        return False

    with each.worker() as worker, ThreadPoolExecutor(2) as threads:
        engine = worker.predictor.engine
        assert isinstance(engine, ContinuousEngine)
        gate = Item("causal", {"input_ids": np.array([5])}, Generated(), GenerationParams(max_new_tokens=1, stop=hold))
        held = engine.submit([gate])
        mixed: list[set[int]] = []
        real = engine._runner.step

        def step(slices: Any, fresh: Any) -> Any:
            mixed.append({id(each.sequence.receiver._request) for each in slices if each.sequence.params.stop is None})
            return real(slices, fresh)

        engine._runner.step = step  # type: ignore[method-assign]
        answers = []
        for shard in (0, 1):  # one after the other, or the first comers of both would share the batch in any case
            answers.append(threads.submit(worker.score, shard))
            while engine._arrivals < 1 + 10 * (shard + 1):
                time.sleep(0.005)
        queued.set()
        for answer in answers:
            assert receipt_of(answer.result()).failed == 0
        held.result()
    assert any(len(requests) == 2 for requests in mixed)


def test_a_model_that_the_engine_cannot_run_is_said_before_it_is_reported(tmp_path: Path, decoder: Path) -> None:
    each = generation(tmp_path / "job", decoder, engine={"name": "continuous", "cache_gb": 1e-6})
    with pytest.raises(EngineError, match="the key-value cache needs"):
        each.factory(each.ticks.append, each.facts.append).score(0)
    assert each.facts == []


def test_rows_set_options_in_columns_of_their_own(tmp_path: Path, decoder: Path) -> None:
    task = {"name": "text-generation", "row_options": ["max_new_tokens"], "logprobs": 1}
    folder = tmp_path / "job"
    columns = {"prompt": "body", "max_new_tokens": "n"}
    each = generation(folder, decoder, task=task, input={"path": str(folder / "in.parquet"), "columns": columns})
    with each.worker() as worker:
        assert receipt_of(worker.score(0)).error_types == {"BadOption": 1}
    rows = each.rows(0)
    assert rows[0]["error"]["message"].startswith("max_new_tokens: ")
    for row in rows[1:]:
        result, asked = row["result"], row["max_new_tokens"]
        assert result["completion_tokens"] == asked or result["finish"] == "stop"
        assert len(result["logprobs"]) == result["completion_tokens"] - (result["finish"] == "stop")


def test_rows_choose_their_adapters(tmp_path: Path, decoder: Path) -> None:
    """By both engines the same; one that nobody knows is the row's error."""
    base = AutoModelForCausalLM.from_pretrained(decoder)
    adapters = {name: str(tmp_path / name) for name in ("odd", "even")}
    for seed, path in enumerate(adapters.values()):
        save_lora(base, Path(path), seed=seed, target_modules=["q_proj", "down_proj"])
    names = [None, "odd", "even", "unknown", *["odd", "even"] * 10, None]
    parts = []
    for engine in ("continuous", "batch"):
        folder = tmp_path / engine
        folder.mkdir()
        model = {"path": str(decoder), "dtype": "float32", "adapters": adapters, "max_adapters": 1}
        changes: dict[str, Any] = {
            "task": {"name": "text-generation", "max_new_tokens": 9},
            "model": model,
            "input": {"path": str(folder / "in.parquet"), "columns": {"prompt": "body"}},
            "engine": {"name": engine},
        }
        table = {"body": ["the same"] * 25, "adapter": names}
        each = site(folder, decoder, table=table, **changes)
        with each.worker() as worker:
            assert [receipt_of(worker.score(shard)).failed for shard in range(3)] == [1, 0, 0]
        parts.append([each.ledger.read_part(shard) for shard in range(3)])
    assert parts[0] == parts[1]
    rows = [row for shard in range(3) for row in each.rows(shard)]
    assert rows[3]["error"]["type"] == "UnknownAdapter"
    texts = {name: {row["result"] for row in rows if row["adapter"] == name} for name in (None, "odd", "even")}
    assert [len(found) for found in texts.values()] == [1, 1, 1]
    assert len(set.union(*texts.values())) == 3
