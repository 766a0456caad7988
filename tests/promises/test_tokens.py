"""R1 to R3 for `kind: tokenize`, in its two phases: whatever is killed, the output is that of an undisturbed run, byte
for byte, and that of any number of workers."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.promises.rig import Nodes, Observer, Rig, environment, kill_workers, seeds

NUM_ROWS, NUM_SHARDS = 6_000, 24
SLOW_S = "0.4"
KILLS = 4


@pytest.fixture
def source(rig: Rig) -> Path:
    """Every tenth row occurs before; one in a hundred is bad."""
    texts: list[Any] = [f"text {number} " + "word " * (number % 7) for number in range(NUM_ROWS)]
    texts[9::10] = texts[0::10]
    texts[50::100] = [None] * (NUM_ROWS // 100)
    pq.write_table(pa.table({"text": texts}), rig.folder / "corpus.parquet", row_group_size=1000)
    return rig.folder / "corpus.parquet"


def job(rig: Rig, source: Path, name: str = "tokens", **changes: Any) -> Path:
    """The last part of the output is in `validation`."""
    spec: dict[str, Any] = {
        "kind": "tokenize",
        "name": name,
        "model": {"path": str(rig.model)},
        "mode": {"name": "packed", "append_eos": False},
        "max_length": 64,
        "input": {"path": str(source)},
        "output": {"path": str(rig.folder / ("out" if name == "tokens" else name))},
        "split": {"validation": 0.2},
        "deduplicate": True,
        "shuffle": True,
        "shard_rows": NUM_ROWS // NUM_SHARDS,
        "max_error_rate": 0.02,
    }
    path = rig.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec | changes))
    return path


def check(rig: Rig, source: Path) -> None:
    """Against a run of one worker that nothing disturbs, and that against the input."""
    (rig.faults / "slow").unlink(missing_ok=True)
    rig.run(job(rig, source, "calm", workers={"min": 1, "max": 1}))
    calm, output = contents(rig.folder / "calm"), contents(rig.output)
    assert output.keys() == calm.keys()
    assert [name for name, data in calm.items() if output[name] != data] == []
    manifest = json.loads((rig.output / "_SUCCESS").read_text())
    assert {f"data/{row[0]}" for row in manifest["parts"]} == {name for name in output if name.startswith("data/")}
    texts = pq.read_table(source)["text"].to_pylist()
    report = json.loads((rig.output / "report.json").read_text())
    assert report["failed"] == texts.count(None) == pq.read_table(rig.output / "errors.parquet").num_rows
    distinct = len(set(texts)) - 1
    assert report["corpus"]["left_out"] == {"deduplicate": NUM_ROWS - texts.count(None) - distinct}
    assert sum(split["documents"] for split in report["corpus"]["splits"]) == distinct
    starts: Counter[str] = Counter()
    for part in sorted((rig.output / "data").rglob("part-*")):
        for positions in pq.read_table(part)["position_ids"].to_pylist():
            starts[part.parent.name] += positions.count(0)
    assert sum(starts.values()) >= distinct, "every document starts somewhere"


def contents(folder: Path) -> dict[str, bytes]:
    """All that a reader of the tokens reads."""
    files = [
        *(folder / "data").rglob("*"),
        *(folder / "tokenizer").rglob("*"),
        folder / "tokens.json",
        folder / "errors.parquet",
    ]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_killed_workers(rig: Rig, source: Path, seed: int) -> None:
    rig.fault("slow", SLOW_S)
    with Observer(rig.output):
        run = rig.start(job(rig, source))
        rig.wait_for(lambda: rig.num_drafts() >= 1, run)
        kills = kill_workers(run, rig.nodes.workers, seed, KILLS)
        assert run.wait() == 0, run.text()
    print(f"seed {seed}: {kills} kills")
    assert kills >= 2
    check(rig, source)


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_removed_raylets(rig: Rig, source: Path, faults: Path, seed: int) -> None:
    dice = random.Random(seed)
    rig.fault("slow", SLOW_S)
    cluster = Nodes(0, environment(faults))
    try:
        nodes = [cluster.add() for _ in range(3)]
        run = rig.start(job(rig, source), nodes=cluster)
        for node in dice.sample(nodes, 2):
            seen = rig.num_drafts() + rig.num_parts()
            more = dice.randrange(1, 12)
            rig.wait_for(lambda seen=seen, more=more: rig.num_drafts() + rig.num_parts() >= seen + more, run)  # type: ignore[misc]
            cluster.remove(node)
        assert run.wait() == 0, run.text()
    finally:
        cluster.close()
    check(rig, source)


@pytest.mark.parametrize("seed", seeds(2, 20))
def test_killed_driver(rig: Rig, source: Path, seed: int) -> None:
    """Killed while drafts are made, or while parts are; finished drafts and parts are not made again."""
    dice = random.Random(seed)
    rig.fault("slow", SLOW_S)
    tokens = job(rig, source)
    with Observer(rig.output):
        run = rig.start(tokens)
        if seed % 2:
            rig.wait_for(lambda: rig.num_parts() >= 1, run)
        else:
            rig.wait_for(lambda: rig.num_drafts() >= 1, run)
        time.sleep(dice.uniform(0, 2))
        run.kill()
        before = made(rig)
        rig.run(tokens)
    print(f"seed {seed}: killed with {rig.num_parts()} parts, {len(before)} files made")
    after = made(rig)
    assert {name: after[name] for name in before if name in after} == {n: f for n, f in before.items() if n in after}
    assert {name for name in before if name.startswith("data/")} <= after.keys()
    files = rig.files()
    assert "already complete" in rig.run(tokens).text()
    assert rig.files() == files
    check(rig, source)


def made(rig: Rig) -> dict[str, tuple[int, int]]:
    return {name: facts for name, facts in rig.files().items() if "/part-" in name}


@pytest.mark.slow
def test_kills_around_the_commits_that_matter(rig: Rig, source: Path) -> None:
    tokens = job(rig, source)
    with Observer(rig.output):
        for point, piece in (
            ("kill-before", "drafts/parts/part-00000003"),
            ("kill-after", "drafts/hashes/00000012"),
            ("kill-after", "drafts/duplicates"),
            ("kill-before", "data/train/part-00000004"),
            ("kill-after", "data/validation/part-00000001"),
            ("kill-before", "/tokens.json"),
            ("kill-before", "/_SUCCESS"),
        ):
            rig.fault(point, piece)
            assert rig.start(tokens).wait() == -9, piece
            assert not (rig.output / "_SUCCESS").exists()
        rig.run(tokens)
    check(rig, source)
