"""A part is put together from drafts: its own rows, in order, none that is a duplicate, names of labels as indexes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfray.data.columns import Columns
from hfray.data.drafts import draft_ledger
from hfray.data.formats import index_file
from hfray.data.layout import Layout
from hfray.data.ledger import ERRORS, Ledger
from hfray.data.listing import list_files
from hfray.data.plan import Plan
from hfray.data.routing import Routing, Split
from hfray.data.selection import RowReader
from hfray.data.token_parts import decode_tokens
from hfray.inference.assembling import AssemblingWorker
from hfray.inference.receipt import Receipt
from hfray.inference.tokenizing import TokenWorker
from hfray.tasks.features import MODES
from hfray.tasks.features.base import Features
from tests.models.support import letter_tokenizer

NUM_ROWS, NUM_PARTS = 25, 3
LABELS = ("cold", "warm")


class Bench:
    """An input of 25 rows in shards of 10, their drafts, and workers that make three parts of them."""

    def __init__(self, folder: Path) -> None:
        texts, labels = [f"text {n}" for n in range(NUM_ROWS)], [LABELS[n % 2] for n in range(NUM_ROWS)]
        pq.write_table(pa.table({"text": texts, "label": labels}), folder / "in.parquet")
        self.plan = Plan([index_file(file, 10, "") for file in list_files([str(folder / "in.parquet")])])
        layout = Layout("data", "parquet", (("train", NUM_PARTS),))
        self.ledger = Ledger(str(folder / "out"), "parquet", "f" * 64, layout=layout)
        self.ledger.open({"fingerprint": "f" * 64})
        self.ledger.storage.make_dirs(ERRORS)
        self.routing = Routing((Split("train", None, 0, NUM_ROWS, NUM_PARTS),), shuffle=True, seed=1)
        self.features: Features = MODES["plain"](
            MODES["plain"].Options(name="plain"), letter_tokenizer(), 64, {"text": pa.string(), "label": pa.string()}
        )
        drafts = draft_ledger(self.ledger)
        drafts.open({"fingerprint": "f" * 64})
        reader = RowReader(self.plan, Columns({}, self.plan.schema))
        worker = TokenWorker(self.plan, drafts, reader, self.features, routing=self.routing)
        for shard in range(self.plan.num_shards):
            receipt = worker.draft(shard)
            assert isinstance(receipt, Receipt)
            assert receipt.names == LABELS

    def parts(self, worker: AssemblingWorker) -> list[tuple[Receipt, list[tuple[str, int]]]]:
        """Of each part, its receipt, and (text, label) of each row."""
        made = []
        for part in range(NUM_PARTS):
            receipt = worker.assemble(part)
            assert isinstance(receipt, Receipt)
            rows = decode_tokens(self.ledger.read_part(part), "parquet", "part").to_pylist()
            texts = [letter_tokenizer().decode(row["input_ids"], skip_special_tokens=True) for row in rows]
            labels = [row["labels"] for row in rows]
            made.append((receipt, list(zip([text.replace(" ##", "") for text in texts], labels, strict=True))))
        return made


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_every_row_is_in_its_part_and_place(bench: Bench) -> None:
    made = bench.parts(AssemblingWorker(bench.plan, bench.ledger, bench.features, bench.routing, labels=LABELS))
    ranks = bench.routing.ranks(0, np.arange(NUM_ROWS))
    order = np.argsort(ranks).tolist()
    assert [row for _, rows in made for row in rows] == [(f"text {n}", n % 2) for n in order]
    assert [receipt.documents for receipt, _ in made] == [len(rows) for _, rows in made]
    assert sum(receipt.tokens for receipt, _ in made) == sum(
        len(letter_tokenizer()(f"text {n}")["input_ids"]) for n in range(NUM_ROWS)
    )


def test_duplicates_are_left_out_and_counted(bench: Bench) -> None:
    later = np.array([3, 4, 19], np.int64)
    worker = AssemblingWorker(bench.plan, bench.ledger, bench.features, bench.routing, labels=LABELS, duplicates=later)
    made = bench.parts(worker)
    left = {text for _, rows in made for text, _ in rows}
    assert left == {f"text {n}" for n in range(NUM_ROWS) if n not in later}
    assert sum(receipt.left_out.get("deduplicate", 0) for receipt, _ in made) == 3


def test_a_shard_without_a_draft_is_not_looked_for(bench: Bench) -> None:
    Path(bench.ledger.storage.url("_work/drafts/parts/part-00000001.arrow")).unlink()
    worker = AssemblingWorker(
        bench.plan, bench.ledger, bench.features, bench.routing, labels=LABELS, absent=frozenset({1})
    )
    left = {text for _, rows in bench.parts(worker) for text, _ in rows}
    assert left == {f"text {n}" for n in range(NUM_ROWS) if not 10 <= n < 20}


def test_a_part_that_is_there_tells_the_same_receipt(bench: Bench) -> None:
    worker = AssemblingWorker(bench.plan, bench.ledger, bench.features, bench.routing, labels=LABELS)
    made, found = worker.assemble(0), worker.assemble(0)
    assert isinstance(made, Receipt)
    assert isinstance(found, Receipt)
    assert found.adopted
    for fact in ("rows", "documents", "tokens", "lengths", "sha256", "size_bytes", "left_out"):
        assert getattr(found, fact) == getattr(made, fact), fact
