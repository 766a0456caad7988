"""Every row finds its part alone: no row twice, none lost, shares as asked, the same on every machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfray.data import routing as routings
from hfray.data.formats import index_file
from hfray.data.listing import list_files
from hfray.data.permutation import stable_hash
from hfray.data.plan import Plan
from hfray.data.routing import Routing, Split, splits_by_share

HASHES = [stable_hash(str(number).encode()) for number in range(1000)]


def plan(folder: Path, num_rows: int, shard_rows: int = 100) -> Plan:
    pq.write_table(pa.table({"n": range(num_rows)}), folder / "in.parquet")
    return Plan([index_file(file, shard_rows, "") for file in list_files([str(folder / "in.parquet")])])


def test_shares_are_those_asked_for() -> None:
    routing = Routing(splits_by_share([("validation", 0.2), ("test", 0.1)], 1000, 100), shuffle=False, seed=0)
    assert [(split.name, split.parts) for split in routing.splits] == [("train", 7), ("validation", 2), ("test", 1)]
    counts = np.bincount([routing.split_of(position, row) for position, row in enumerate(HASHES)], minlength=3)
    assert counts.sum() == 1000
    assert np.abs(counts - [700, 200, 100]).max() < 60
    assert counts.tolist() == [697, 209, 94], "pinned: a row must stay in its split"


def test_splits_of_the_input_keep_their_rows() -> None:
    splits = (Split("train", None, 0, 600, 6), Split("validation", None, 600, 400, 4))
    routing = Routing(splits, shuffle=False, seed=0)
    assert [routing.split_of(position, 0) for position in (0, 599, 600, 999)] == [0, 0, 1, 1]
    assert routing.parts(1, routing.ranks(1, np.array([600, 699, 700, 999]))).tolist() == [0, 0, 1, 3]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("max_groups", [256, 3])
def test_a_part_finds_all_its_rows_in_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffle: bool, max_groups: int
) -> None:
    monkeypatch.setattr(routings, "MAX_GROUPS", max_groups)
    where = plan(tmp_path, 1050)
    routing = Routing(splits_by_share([("validation", 0.3)], 1050, 100), shuffle=shuffle, seed=7)
    positions = np.arange(1050)
    seen = 0
    for split, each in enumerate(routing.splits):
        parts = routing.parts(split, routing.ranks(split, positions))
        assert set(parts.tolist()) == set(range(each.parts))
        for part in range(each.parts):
            rows = positions[parts == part]
            shards = {where.shard(number).index for number in routing.sources(where, split, part)}
            assert {int(row) // 100 for row in rows} <= shards
            seen += len(rows)
        groups = [routing.group(split, part) for part in range(each.parts)]
        assert groups == sorted(groups)
        assert max(groups) < max_groups
    assert seen == 2 * 1050
    if not shuffle:
        assert len(routing.sources(where, 0, 0)) <= 3, "a part looks only where its rows can be"


def test_a_shuffle_moves_rows_far_and_by_its_seed() -> None:
    split = (Split("train", None, 0, 10_000, 10),)
    one, other = (Routing(split, shuffle=True, seed=seed).ranks(0, np.arange(10_000)) for seed in (1, 2))
    assert sorted(one.tolist()) == list(range(10_000))
    assert np.abs(one - np.arange(10_000)).mean() > 2_500
    assert (one != other).mean() > 0.99


def test_no_rows(tmp_path: Path) -> None:
    routing = Routing((Split("train", None, 0, 0, 1),), shuffle=False, seed=0)
    assert list(routing.sources(plan(tmp_path, 0), 0, 0)) == []
