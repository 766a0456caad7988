"""Examples by number: the same from Parquet and Arrow, from a disk and a bucket, in any order, in bounded memory."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hfray.data import token_parts
from hfray.errors import DataError, SpecError
from hfray.training.order import Draw
from hfray.training.tokens import Example, TokenExamples
from tests.kinds.test_tokenize import Office
from tests.training.support import IDS, plain_rows, write_tokens

Opened = Callable[..., TokenExamples]

ROWS = plain_rows(57)
PARTS = [ROWS[:20], [], ROWS[20:21], ROWS[21:]]


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_parts, "ROW_GROUP_ROWS", 8)
    monkeypatch.setattr(token_parts, "BATCH_ROWS", 8)


@pytest.fixture
def opened() -> Iterator[Callable[..., TokenExamples]]:
    """Opens splits, and closes them in the end."""
    with ExitStack() as stack:
        yield lambda *args, **settings: stack.enter_context(closing(TokenExamples(*args, **settings)))


def plainly(example: Example) -> dict[str, Any]:
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in example.columns.items()}


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize("spooled", [False, True])
def test_examples_are_those_that_were_written(tmp_path: Path, format: str, spooled: bool, opened: Opened) -> None:
    path = write_tokens(str(tmp_path / "out"), {"validation": [ROWS[:3]], "train": PARTS}, format=format)
    examples = opened(path, spool=tmp_path / "spool" if spooled else None)
    assert len(examples) == 57
    assert [plainly(examples[number]) for number in range(57)] == ROWS
    numbers = np.random.default_rng(0).permutation(57).tolist()
    found = examples.take(numbers)
    assert [example.number for example in found] == numbers
    assert [plainly(example) for example in found] == [ROWS[number] for number in numbers]
    assert [plainly(each) for each in opened(path, "validation").take([2, 2, 0])] == [ROWS[2], ROWS[2], ROWS[0]]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["plain", "packed"])
@pytest.mark.parametrize("format", ["parquet", "datasets"])
@pytest.mark.parametrize("phases", [1, 2])
def test_examples_are_those_of_a_tokenize_job(
    office: Office, mode: str, format: str, phases: int, opened: Opened
) -> None:
    chosen = {"name": "packed", "append_eos": False} if mode == "packed" else mode
    changes: dict[str, Any] = {"split": {"validation": 0.3}, "shuffle": True} if phases == 2 else {}
    output = {"path": str(office.out), "format": format}
    office.run(mode=chosen, max_length=16, output=output, **changes)
    suffix = "parquet" if format == "parquet" else "arrow"
    for split in ("train", "validation")[:phases]:
        examples = opened(str(office.out), split)
        parts = sorted((office.out / "data" / split).glob(f"*.{suffix}"))
        rows = [
            row
            for part in parts
            for row in token_parts.decode_tokens(part.read_bytes(), suffix, "").to_pylist()  # type: ignore[arg-type]
        ]
        assert [plainly(example) for example in examples.take(range(len(examples)))] == rows
        assert len(rows) > 5


@pytest.mark.slow
def test_examples_of_a_bucket(tmp_path: Path, s3: str, opened: Opened) -> None:
    for format in ("parquet", "arrow"):
        examples = opened(write_tokens(f"{s3}/{format}", {"train": PARTS}, format=format), spool=tmp_path)
        assert [plainly(examples[number]) for number in (56, 20, 3, 19, 21)] == [ROWS[n] for n in (56, 20, 3, 19, 21)]


def test_a_batch_of_draws_keeps_its_epochs(tmp_path: Path, opened: Opened) -> None:
    examples = opened(write_tokens(str(tmp_path), {"train": PARTS}))
    found = examples.__getitems__([Draw(2, 7), Draw(3, 0)])
    assert [(example.epoch, example.number) for example in found] == [(2, 7), (3, 0)]


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_other_columns(tmp_path: Path, format: str, opened: Opened) -> None:
    schema = pa.schema(
        [
            ("input_ids", IDS),
            ("labels", pa.list_(pa.float32())),
            ("offset_mapping", pa.list_(pa.list_(pa.int32(), 2))),
            ("example_id", pa.string()),
        ]
    )
    rows = [
        {"input_ids": [1, 2], "labels": [0.0, 1.0], "offset_mapping": [[0, 3], [-1, -1]], "example_id": "a"},
        {"input_ids": [3], "labels": [1.0, 1.0], "offset_mapping": [[4, 5]], "example_id": None},
    ]
    path = write_tokens(str(tmp_path / "out"), {"train": [rows]}, schema, format=format)
    for spool in (None, tmp_path / "spool"):
        examples = opened(path, spool=spool)
        assert [plainly(examples[number]) for number in (1, 0)] == [rows[1], rows[0]]
        assert examples[0].columns["labels"].dtype == np.float32
    assert list(opened(path, columns=["labels"])[0].columns) == ["labels"]


def test_lengths_are_those_of_the_examples(tmp_path: Path, opened: Opened) -> None:
    examples = opened(write_tokens(str(tmp_path), {"train": [ROWS[:40], ROWS[40:]]}))
    numbers = [56, 3, 41, 3]
    expected = [[len(each.columns["input_ids"])] for each in examples.take(numbers)]
    assert examples.lengths(numbers, ("input_ids",)).tolist() == expected
    assert examples.lengths([7], ()).shape == (1, 0)
    with pytest.raises(IndexError, match="example 57 of 57 in split train"):
        examples.lengths([0, 57], ("input_ids",))


def test_memory_is_bounded(tmp_path: Path, opened: Opened) -> None:
    path = write_tokens(str(tmp_path / "out"), {"train": PARTS})
    one = opened(path)
    one[0]
    examples = opened(path, cache_bytes=3 * one.cached_bytes)
    most = 0
    for number in np.random.default_rng(1).permutation(57).tolist():
        assert plainly(examples[number]) == ROWS[number]
        most = max(most, examples.cached_bytes)
    assert one.cached_bytes <= most <= 3 * one.cached_bytes


def test_a_spool_reads_each_block_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Opened) -> None:
    path = write_tokens(str(tmp_path / "out"), {"train": PARTS})
    spool = tmp_path / "spool"
    first = opened(path, cache_bytes=0, spool=spool)
    first.take(range(57))
    monkeypatch.setattr("hfray.training.blocks.ParquetPart.read", lambda *_: pytest.fail("decoded again"))
    for examples in (first, opened(path, cache_bytes=0, spool=spool)):
        assert [plainly(examples[number]) for number in range(56, -1, -1)] == ROWS[::-1]
    with pytest.raises(pytest.fail.Exception):  # what is spooled has these columns
        opened(path, columns=["labels"], spool=spool)[0]
    assert not list(spool.rglob("*.tmp"))


def test_it_travels_without_its_cache(tmp_path: Path, opened: Opened) -> None:
    examples = opened(write_tokens(str(tmp_path), {"train": PARTS}))
    examples.take(range(57))
    data = pickle.dumps(examples)
    assert len(data) < 3000
    copy = pickle.loads(data)  # noqa: S301
    assert plainly(copy[40]) == ROWS[40]
    copy.close()
    examples.close()
    assert examples.cached_bytes == 0
    assert plainly(examples[40]) == ROWS[40]


def test_many_parts_keep_few_files_open(tmp_path: Path, opened: Opened) -> None:
    examples = opened(write_tokens(str(tmp_path), {"train": [[row] for row in ROWS]}))
    assert [plainly(examples[number]) for number in range(57)] == ROWS
    assert len(examples._open) == 16


def test_what_is_not_there_is_said(tmp_path: Path, opened: Opened) -> None:
    path = write_tokens(str(tmp_path / "out"), {"train": PARTS})
    for number in (-1, 57):
        with pytest.raises(IndexError, match=f"example {number} of 57"):
            opened(path)[number]
    with pytest.raises(SpecError, match="has no split 'trian', did you mean train"):
        opened(path, "trian")
    with pytest.raises(SpecError, match="has no column 'label', did you mean labels"):
        opened(path, columns=["label"])
    with pytest.raises(SpecError, match="no tokenised folder"):
        opened(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_a_part_that_was_changed_is_named(tmp_path: Path, format: str, opened: Opened) -> None:
    for number, data in enumerate((b"", b"x" * 99, None)):
        path = write_tokens(str(tmp_path / str(number)), {"train": PARTS}, format=format)
        part = sorted((Path(path) / "data" / "train").iterdir())[0]
        other = sorted((Path(path) / "data" / "train").iterdir())[-1]
        part.write_bytes(other.read_bytes() if data is None else data)
        with pytest.raises(DataError, match=f"{part.name}: "):
            opened(path)[0]


def test_an_extension_type_is_refused(tmp_path: Path, opened: Opened) -> None:
    for format in ("parquet", "arrow"):
        path = write_tokens(str(tmp_path / format), {"train": [ROWS]}, format=format)
        (part,) = (Path(path) / "data" / "train").iterdir()
        uuids = pa.array([b"0" * 16] * 57, pa.binary(16)).cast(pa.uuid())
        table = pa.table({"input_ids": uuids, "labels": list(range(57))})
        part.write_bytes(token_parts.encode_tokens(table, format, {}))  # type: ignore[arg-type]
        with pytest.raises(DataError, match="extension type"):
            opened(path)[0]
