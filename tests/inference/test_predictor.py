"""The predictor: one answer per row, in order, whatever fails; seeds come from the row."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from hfray.engines.base import EngineStats, Outputs
from hfray.engines.fake import FakeEngine
from hfray.errors import EngineError, ItemError, RowError
from hfray.inference.predictor import Predictor, row_seed
from hfray.tasks.base import ModelInfo, Processor, Task, TaskOptions
from hfray.types import Encoded, GenerationParams, Item, Logits, Output, Result, Row


class Count(Task):
    """`n` items for a row; its answer is their number."""

    name: ClassVar[str] = "count"
    mode: ClassVar[Any] = "forward"
    auto_model: ClassVar[str] = "AutoModel"
    columns: ClassVar[tuple[str, ...]] = ("n",)

    class Options(TaskOptions):
        name: str = "count"

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        return [self._encode(row["n"]) for row in rows]

    def _encode(self, n: int) -> Encoded | RowError:
        if n < 0:
            return RowError("n is negative", type="Negative")
        params = GenerationParams(temperature=0.7 if n % 2 else 0.0) if self.mode == "generate" else None
        item = Item("text", {"input_ids": np.arange(1, n + 2)}, Logits(), generation=params)
        return Encoded((item,) * n, carry=n, truncated=n > 3)

    def decode(self, outputs: Sequence[Output], carry: Any) -> Result:
        if carry == 5:
            raise RowError("five", type="Five")
        assert len(outputs) == carry
        return len(outputs)

    def result_type(self) -> pa.DataType:
        return pa.int64()


class Generate(Count):
    mode: ClassVar[Any] = "generate"


class Recording:
    """An engine that fails items of four tokens and remembers what it got."""

    def __init__(self) -> None:
        self.stats = EngineStats()
        self.items: list[Item] = []

    def submit(self, items: Sequence[Item]) -> Future[Outputs]:
        self.items += items
        future: Future[Outputs] = Future()
        future.set_result(
            [ItemError("no", type="No") if item.num_tokens == 4 else {"logits": np.zeros(1)} for item in items]
        )
        return future

    def run(self, items: Sequence[Item]) -> Outputs:
        return self.submit(items).result()

    def close(self) -> None:
        pass


def task(cls: type[Count] = Count) -> Count:
    info = ModelInfo(name="m", model_type="bert", architectures=(), labels=("a",), problem_type=None, max_length=64)
    return cls(cls.Options(), Processor(tokenizer=None), info)


def rows(*numbers: int) -> list[dict[str, int]]:
    return [{"n": number} for number in numbers]


def test_answers_stand_in_the_order_of_the_rows() -> None:
    engine = FakeEngine()
    try:
        assert Predictor(task(), engine).predict(rows(2, 0, 1, 4)) == [2, 0, 1, 4]
        assert Predictor(task(), engine).predict([]) == []
    finally:
        engine.close()


def test_errors_stand_in_the_place_of_their_row() -> None:
    answers = Predictor(task(), Recording()).predict(rows(1, -1, 3, 5, 2))
    assert [getattr(answer, "type", answer) for answer in answers] == [1, "Negative", "No", "Five", 2]


def test_lengths_of_all_items() -> None:
    assert Predictor(task(), Recording()).submit(rows(1, -1, 2)).item_lengths() == [2, 3, 3]


def test_rows_that_lost_text_are_counted_and_not_their_items() -> None:
    assert Predictor(task(), Recording()).submit(rows(1, -1, 4, 2, 6)).num_truncated == 2
    assert Predictor(task(Generate), Recording()).submit(rows(5)).num_truncated == 1


def test_a_task_that_loses_a_row_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    each = task()
    monkeypatch.setattr(each, "encode", lambda rows, options: [])
    with pytest.raises(EngineError, match="encoded 1 rows to 0"):
        Predictor(each, Recording()).submit(rows(1))


def test_sampled_items_are_seeded_by_seed_position_and_sample_alone() -> None:
    def seeds(seed: int, numbers: Sequence[int], positions: Sequence[int]) -> list[int]:
        engine = Recording()
        Predictor(task(Generate), engine, seed=seed).predict(rows(*numbers), positions)
        return [item.generation.seed for item in engine.items if item.generation is not None]

    first = seeds(0, (3, 1), (10, 20))
    assert len(set(first)) == 4
    assert seeds(0, (1, 3), (20, 10)) == [first[3], *first[:3]], "not by the place in the batch"
    assert not set(seeds(1, (3, 1), (10, 20))) & set(first)
    assert seeds(0, (2,), (10,)) == [0, 0], "greedy items need none"


def test_a_row_with_a_seed_of_its_own_is_the_same_everywhere() -> None:
    class Own(Generate):
        def encode(self, rows: Sequence[Any], options: Any = None) -> list[Any]:
            return [
                replace(each, own_places=tuple((0, k) for k in range(len(each.items))))
                for each in super().encode(rows, options)
            ]

    def seeds(seed: int, positions: Sequence[int]) -> list[int]:
        engine = Recording()
        Predictor(task(Own), engine, seed=seed).predict(rows(3, 1), positions)
        return [item.generation.seed for item in engine.items if item.generation is not None]

    assert seeds(7, (10, 20)) == seeds(0, (5, 0))
    assert seeds(0, (0, 0)) == [row_seed(0, 0, number) for number in range(3)] + [row_seed(0, 0, 0)]


def test_a_row_seed_is_the_same_on_every_machine() -> None:
    assert [row_seed(0, 0, 0), row_seed(7, 123_456, 3)] == [9044811311333822937, 6821093593934838332]
    assert row_seed(0, 1, 0) != row_seed(0, 0, 1)
