"""Packing: every token once, few sequences, and the columns that a model is trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hfray.tasks.features import packing as packing_module
from hfray.tasks.features.base import IGNORED
from hfray.tasks.features.packing import Packer, Packing, as_lists, pack, packed_columns
from hfray.types import Ragged

LENGTHS = st.lists(st.integers(0, 40), max_size=60)
STRATEGIES = ("best_fit", "concatenate")
PAD = -7


def documents_of(lengths: list[int]) -> Ragged:
    """Documents whose tokens are all different, so that each can be found again."""
    return Ragged(np.arange(sum(lengths), dtype=np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def pieces(packing: Packing) -> list[tuple[int, int, int]]:
    rows = zip(packing.documents, packing.starts, packing.lengths, strict=True)
    return [(int(document), int(start), int(length)) for document, start, length in rows]


def naive_best_fit(lengths: list[int], max_length: int) -> int:
    """The number of bins that best-fit decreasing makes, the quadratic way."""
    room: list[int] = []
    full = sum(length // max_length for length in lengths)
    for length in sorted((length % max_length for length in lengths), reverse=True):
        if not length:
            continue
        fitting = [index for index, left in enumerate(room) if left >= length]
        if fitting:
            room[min(fitting, key=lambda index: room[index])] -= length
        else:
            room.append(max_length - length)
    return full + len(room)


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(lengths=LENGTHS, max_length=st.integers(1, 20))
def test_each_token_is_in_one_place(lengths: list[int], max_length: int, strategy: Any) -> None:
    packing = pack(np.array(lengths, np.int64), max_length, strategy)
    covered = sorted((document, start + i) for document, start, length in pieces(packing) for i in range(length))
    assert covered == [(document, i) for document, length in enumerate(lengths) for i in range(length)]
    fill = np.bincount(packing.sequences, weights=packing.lengths, minlength=packing.num_sequences)
    assert (fill <= max_length).all()
    assert (fill > 0).all()
    assert (np.diff(packing.sequences) >= 0).all()
    assert packing.efficiency == (sum(lengths) / (packing.num_sequences * max_length) if sum(lengths) else 1.0)


@given(lengths=LENGTHS, max_length=st.integers(1, 20))
def test_best_fit_cuts_only_what_is_too_long_and_wastes_no_more_than_the_quadratic_way(
    lengths: list[int], max_length: int
) -> None:
    packing = pack(np.array(lengths, np.int64), max_length)
    expected = [
        (document, start, min(max_length, length - start))
        for document, length in enumerate(lengths)
        for start in range(0, length, max_length)
    ]
    assert sorted(pieces(packing)) == expected
    assert packing.num_sequences == naive_best_fit(lengths, max_length)


@given(lengths=LENGTHS, max_length=st.integers(1, 20))
def test_concatenate_is_one_text_cut_every_max_length(lengths: list[int], max_length: int) -> None:
    ids = documents_of(lengths)
    packing = pack(ids.lengths, max_length, "concatenate")
    columns = packed_columns(ids, None, packing, PAD)
    flat = columns["input_ids"].reshape(-1)
    assert flat[: len(ids.values)].tolist() == ids.values.tolist()
    assert (flat[len(ids.values) :] == PAD).all()
    assert packing.num_sequences == -(-len(ids.values) // max_length)


@pytest.mark.parametrize("block_tokens", [1, 7, packing_module.BLOCK_TOKENS])
@pytest.mark.parametrize("with_labels", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
@given(lengths=LENGTHS, max_length=st.integers(1, 20))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_columns_are_those_of_the_slow_way(
    monkeypatch: pytest.MonkeyPatch,
    lengths: list[int],
    max_length: int,
    strategy: Any,
    with_labels: bool,
    block_tokens: int,
) -> None:
    monkeypatch.setattr(packing_module, "BLOCK_TOKENS", block_tokens)
    ids = documents_of(lengths)
    labels = Ragged(ids.values + 1000, ids.offsets) if with_labels else None
    packing = pack(ids.lengths, max_length, strategy)
    columns = packed_columns(ids, labels, packing, PAD)

    expected: dict[str, list[list[int]]] = {"input_ids": [], "position_ids": [], "labels": []}
    for sequence in range(packing.num_sequences):
        tokens: list[int] = []
        positions: list[int] = []
        targets: list[int] = []
        for piece in np.flatnonzero(packing.sequences == sequence):
            start, length = packing.starts[piece], packing.lengths[piece]
            part = ids[packing.documents[piece]][start : start + length].tolist()
            tokens += part
            positions += range(length)
            targets += [IGNORED, *(token + 1000 * with_labels for token in part[1:])]
        padding = max_length - len(tokens)
        expected["input_ids"].append(tokens + [PAD] * padding)
        expected["position_ids"].append(positions + list(range(padding)))
        expected["labels"].append(targets + [IGNORED] * padding)
    assert {name: column.tolist() for name, column in columns.items()} == expected
    assert all(column.dtype == np.int32 for column in columns.values())


def test_the_same_lengths_are_packed_the_same_and_in_the_order_of_their_first_documents() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, 500)
    first, second = pack(lengths, 256), pack(lengths.copy(), 256)
    assert pieces(first) == pieces(second)
    starts = [int(first.documents[first.sequences == sequence][0]) for sequence in range(first.num_sequences)]
    assert starts == sorted(starts)


@pytest.mark.slow
@pytest.mark.parametrize("max_length", [2048, 131_072])
def test_many_documents_fill_nearly_everything(max_length: int) -> None:
    rng = np.random.default_rng(0)
    for lengths in (rng.lognormal(5, 1.2, 200_000).astype(np.int64), rng.integers(1, max_length, 200_000)):
        assert pack(lengths, max_length).efficiency > 0.99


def test_nothing_makes_no_sequence() -> None:
    for strategy in STRATEGIES:
        for lengths in ([], [0, 0]):
            packing = pack(np.array(lengths, np.int64), 8, strategy)  # type: ignore[arg-type]
            columns = packed_columns(documents_of(lengths), None, packing, PAD)
            assert {name: column.shape for name, column in columns.items()} == dict.fromkeys(
                ("input_ids", "position_ids", "labels"), (0, 8)
            )
            assert packing.efficiency == 1


def test_a_packer_gives_lists_of_one_length_that_fit_its_schema() -> None:
    packer = Packer("best_fit", 8, PAD)
    packed = packer.pack({"input_ids": documents_of([3, 9, 5])})
    assert packer.schema().names == list(packed)
    assert [each.lengths.tolist() for each in packed.values()] == [[8, 8, 8]] * 3
    assert packed["input_ids"][0].tolist() == [0, 1, 2, 12, 13, 14, 15, 16]
    rows = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert np.shares_memory(as_lists(rows).values, rows)
