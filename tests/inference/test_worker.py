"""The shard worker without Ray: commits once, adopts what is there, keeps every row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfray.data.base import ReadOptions
from hfray.data.columns import Columns
from hfray.data.formats import index_file
from hfray.data.ledger import Ledger
from hfray.data.listing import list_files
from hfray.data.parts import decode_part
from hfray.data.plan import Plan
from hfray.data.selection import RowReader
from hfray.data.where import compile_where
from hfray.engines.fake import FakeEngine
from hfray.errors import DataError
from hfray.inference import worker as workers
from hfray.inference.predictor import Predictor
from hfray.inference.receipt import Receipt, ShardFailure, Tick
from hfray.inference.totals import Totals
from hfray.inference.worker import ShardWorker
from hfray.tasks.base import ModelInfo, Processor
from hfray.tasks.text_classification import TextClassification
from tests.models.support import letter_tokenizer

LABELS = ("cold", "warm", "hot")


class Bench:
    """An input of 25 rows in shards of 10, and workers over it."""

    def __init__(self, folder: Path, texts: list[Any]) -> None:
        self.path = folder / "in.parquet"
        pq.write_table(pa.table({"n": list(range(len(texts))), "text": pa.array(texts, pa.string())}), self.path)
        (file,) = list_files((str(self.path),), "parquet")
        self.plan = Plan([index_file(file, 10, str(folder), ReadOptions())])
        self.ledger = Ledger(str(folder / "out"), "parquet", "f" * 64)
        self.ledger.open({"fingerprint": "f" * 64})
        self.engines: list[FakeEngine] = []
        self.ticks: list[Tick] = []

    def worker(self, where: str | None = None) -> ShardWorker:
        return ShardWorker(
            self.plan,
            self.ledger,
            self._predictor,
            reader=RowReader(
                self.plan,
                Columns({}, self.plan.schema, frozenset()),
                where=None if where is None else compile_where(where),
            ),
            tick=self.ticks.append,
        )

    def rows(self, shard: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = decode_part(self.ledger.read_part(shard), "parquet", "part").to_pylist()
        return rows

    def _predictor(self) -> Predictor:
        info = ModelInfo(name="m", model_type="bert", architectures=(), labels=LABELS, problem_type=None, max_length=64)
        options = TextClassification.Options(top_k="all")
        self.engines.append(FakeEngine(num_labels=len(LABELS)))
        return Predictor(TextClassification(options, Processor(tokenizer=letter_tokenizer()), info), self.engines[-1])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    texts: list[Any] = [f"text {number}" for number in range(25)]
    texts[3], texts[14] = None, "a\0b"
    each = Bench(tmp_path, texts)
    yield each
    for engine in each.engines:
        engine.close()


def test_a_shard_becomes_a_part_and_a_receipt(bench: Bench) -> None:
    receipts = [bench.worker().score(shard) for shard in range(3)]
    rows = [row for shard in range(3) for row in bench.rows(shard)]
    assert [row["n"] for row in rows] == list(range(25))
    assert all((row["result"] is None) != (row["error"] is None) for row in rows)
    assert {row["n"]: row["error"]["type"] for row in rows if row["error"]} == {3: "NullText", 14: "InvalidText"}
    for shard, receipt in enumerate(receipts):
        assert isinstance(receipt, Receipt)
        assert (receipt.shard, receipt.rows, receipt.adopted) == (shard, (10, 10, 5)[shard], False)
        assert receipt.size_bytes == len(bench.ledger.read_part(shard))
        assert sum(receipt.labels.values()) == receipt.rows - receipt.failed
        assert receipt.tokens > 0
    assert sum(tick.rows for tick in bench.ticks) == 25
    assert sum(tick.failed for tick in bench.ticks) == 2


def test_a_part_that_is_there_is_adopted_without_a_model(bench: Bench) -> None:
    first = bench.worker().score(0)
    assert isinstance(first, Receipt)
    second = bench.worker().score(0)
    assert isinstance(second, Receipt)
    assert len(bench.engines) == 1
    assert second.adopted
    assert (second.sha256, second.rows, second.failed) == (first.sha256, first.rows, first.failed)
    assert dict(second.error_types) == dict(first.error_types) == {"NullText": 1}


def test_the_part_of_a_faster_attempt_is_what_counts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.worker().score(0)
    data = bench.ledger.read_part(0)
    monkeypatch.setattr(Ledger, "has_part", lambda self, shard: False)  # it appeared after we looked
    receipt = bench.worker().score(0)
    assert isinstance(receipt, Receipt)
    assert receipt.adopted
    assert bench.ledger.read_part(0) == data


def test_chunks_do_not_change_a_part(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bench.worker().score(0)
    bench.ledger.delete("data/part-00000000.parquet")
    monkeypatch.setattr(workers, "CHUNK_BYTES", 12)
    chunked = bench.worker().score(0)
    assert isinstance(whole, Receipt)
    assert isinstance(chunked, Receipt)
    assert chunked.sha256 == whole.sha256
    assert len(bench.ticks) > 3


def test_a_receipt_counts_the_rows_whose_text_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 64 tokens, two of them special.
    texts: list[Any] = ["x " * num for num in (62, 63, 1, 200, 62, 63, 64, 61)] + [None, "a\0b", "x " * 99]
    each = Bench(tmp_path, texts)
    monkeypatch.setattr(workers, "CHUNK_BYTES", 300)
    receipts = [each.worker().score(shard) for shard in range(2)]
    assert [receipt.truncated for receipt in receipts if isinstance(receipt, Receipt)] == [4, 1]
    totals = Totals()
    for receipt in receipts:
        assert isinstance(receipt, Receipt)
        totals.add(receipt)
    assert totals.truncated == 5
    assert each.worker().adopt(0).truncated == 0
    for engine in each.engines:
        engine.close()


def test_where_keeps_rows_and_those_it_cannot_judge(bench: Bench) -> None:
    receipt = bench.worker("n >= 2 and length(text) > 0 and n < 6").score(0)
    assert isinstance(receipt, Receipt)
    rows = bench.rows(0)
    assert {row["n"] for row in rows} <= {2, 3, 4, 5}
    assert {2, 4, 5} <= {row["n"] for row in rows}
    assert all((row["result"] is None) != (row["error"] is None) for row in rows)


def test_a_shard_without_rows_left_is_a_part_all_the_same(bench: Bench) -> None:
    receipt = bench.worker("n > 1000").score(1)
    assert isinstance(receipt, Receipt)
    assert receipt.rows == 0
    assert bench.rows(1) == []


def test_a_file_that_is_gone_fails_its_shard_only(bench: Bench) -> None:
    bench.path.unlink()
    failure = bench.worker().score(1)
    assert isinstance(failure, ShardFailure)
    assert failure.file.endswith("in.parquet")
    assert not bench.ledger.has_part(1)


def test_a_model_that_cannot_be_loaded_is_no_failure_of_the_file(bench: Bench) -> None:
    worker = bench.worker()

    def broken() -> Predictor:
        raise DataError("the hub cannot be reached")

    worker._make_predictor = broken  # type: ignore[method-assign]
    with pytest.raises(DataError, match="hub"):
        worker.score(0)


def test_retry_computes_the_failed_rows_and_stages_the_rest(bench: Bench, tmp_path: Path) -> None:
    bench.worker().score(0)
    before = bench.rows(0)
    retried = bench.worker().retry(0)
    assert bench.rows(0) == before, "staged, not replaced"
    assert (retried.rows, retried.failed) == (10, 1), "the row is as bad as it was"
    assert sum(retried.lengths) == 0, "nothing to compute for a null"
    assert retried.sha256 == Receipt.from_json(retried.to_json()).sha256
    bench.ledger.begin_retry([retried.to_json()])
    bench.ledger.finish_retry()
    assert bench.rows(0) == before


def test_retry_refuses_another_input(bench: Bench) -> None:
    bench.worker().score(0)
    with pytest.raises(DataError, match="has 10 rows, its input 8"):
        bench.worker("n < 8").retry(0)
