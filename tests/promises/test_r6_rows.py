"""R6: bad rows neither stop nor corrupt a job; each row has one result or one error."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.promises import oracle, undisturbed
from tests.promises.rig import Observer, Rig, seeds

PNG = b"\x89PNG\x0d\x1a\x00\x00\x00IHDR\xff\xfe"
PANIC = "x" * 60
"""Backtracking over it passes the limit of the Rust tokenizer's regular expressions, which then panics."""


def panicking_model(rig: Rig) -> Path:
    """The tiny model with a tokenizer.json whose pattern panics on PANIC."""
    folder = rig.folder / "panicking"
    shutil.copytree(rig.model, folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    split = {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, tokenizer["pre_tokenizer"]]}
    path.write_text(json.dumps(tokenizer))
    return folder


def _line(number: int, text: Any) -> bytes:
    return json.dumps({"number": number, "text": text}).encode()


# What is planted -> (line, type of the error that must stand beside the row)
PLANTED: dict[str, tuple[Any, str]] = {
    "null": (lambda n: _line(n, None), "NullText"),
    "number": (lambda n: _line(n, 7), "WrongType"),
    "object": (lambda n: _line(n, {"a": [1]}), "WrongType"),
    "invalid UTF-8": (lambda n: b'{"number": %d, "text": "caf\xe9"}' % n, "InvalidText"),
    "lone surrogate": (lambda n: b'{"number": %d, "text": "\\ud800"}' % n, "InvalidText"),
    "empty": (lambda n: _line(n, ""), "EmptyText"),
    "NUL": (lambda n: _line(n, "a\0b"), "InvalidText"),
    "2 MB": (lambda n: _line(n, "long " * 400_000), "TextTooLong"),
    "panic": (lambda n: _line(n, PANIC), "TokenizerFailure"),
    "image bytes": (lambda n: _line(n, PNG.decode("latin-1")), "InvalidText"),
    "broken line": (lambda n: b'{"number": %d, "text": ' % n, "MalformedRow"),
}


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_every_planted_row_has_its_error_and_every_other_row_its_result(rig: Rig, seed: int) -> None:
    dice = random.Random(seed)
    kinds = list(PLANTED)
    bad = {place: kinds[order % len(kinds)] for order, place in enumerate(dice.sample(range(10_000), 100))}
    equal = [place for place in (100, 101, 5_000, 9_999) if place not in bad]
    lines = []
    for place in range(10_000):
        if place in bad:
            lines.append(PLANTED[bad[place]][0](place))
        else:
            text = "the same" if place in equal else f"text {place} " + "word " * (place % 5)
            lines.append(_line(place, text))
    source = rig.folder / "input.jsonl"
    source.write_bytes(b"\n".join(lines) + b"\n")
    job = rig.job(source, seconds_per_item=None, model={"path": str(panicking_model(rig))}, max_error_rate=0.05)
    with Observer(rig.output):
        rig.run(job)
    numbers = [None if bad.get(place) == "broken line" else place for place in range(10_000)]
    oracle.check(rig.output, pa.table({"number": numbers}))
    rows = [
        row
        for path in sorted((rig.output / "data").iterdir())
        for row in oracle.read_part(path.name, path.read_bytes())
    ]
    failed = {place: row["error"]["type"] for place, row in enumerate(rows) if row["error"] is not None}
    assert failed == {place: PLANTED[kind][1] for place, kind in bad.items()}
    for place in equal:  # in other company, so that padding differs in the last bits
        assert rows[place]["result"] is not None
        oracle.check_same_result(rows[place], rows[equal[0]])
    print(f"seed {seed}: {len(failed)} planted of {len(kinds)} kinds, all found")


@pytest.mark.slow
def test_too_many_errors_end_the_job_and_a_higher_limit_completes_it_without_computing(rig: Rig) -> None:
    texts = [f"text {number}" if number < 1_960 else None for number in range(2_000)]  # 2 %, in the last shard
    source = rig.folder / "input.parquet"
    pq.write_table(pa.table({"number": list(range(2_000)), "text": texts}), source)
    job = rig.job(source, seconds_per_item=0.0005, workers={"max": 1})
    with Observer(rig.output) as observer:
        failed = rig.run(job, code=3)
        assert "NullText" in failed.text()
        assert "max_error_rate" in failed.text()
        assert not (rig.output / "_SUCCESS").exists()
        assert observer.complete_observations == 0
        loads, before = rig.num_loads(), rig.files()
        rig.run(job, "--set", "max_error_rate=0.05")
        after = rig.files()
    assert rig.num_loads() == loads
    parts = [name for name in before if name.startswith("data/")]
    assert len(parts) == 8
    assert all(after[name] == before[name] for name in parts)
    oracle.check(rig.output, pq.read_table(source), undisturbed.run(job, rig.folder / "undisturbed"))


@pytest.mark.slow
def test_unreadable_files_are_named_and_all_others_finish(rig: Rig) -> None:
    folder = rig.folder / "files"
    folder.mkdir()
    texts = pa.array([b"plain text"] * 248 + [b"caf\xe9", PNG], type=pa.binary()).view(pa.string())
    good = pa.table({"number": pa.array(range(250), pa.int64()), "text": texts})
    for number, name in enumerate(("a.parquet", "m.parquet", "z.parquet")):
        shifted = [250 * number + place for place in range(250)]
        pq.write_table(good.set_column(0, "number", pa.array(shifted, pa.int64())), folder / name)
    whole = (folder / "a.parquet").read_bytes()
    (folder / "truncated.parquet").write_bytes(whole[: len(whole) // 2])
    pickled = pa.field("text", pa.binary(), metadata={"ARROW:extension:name": "ray.data.arrow_pickled_object"})
    schema = pa.schema([pa.field("number", pa.int64()), pickled])
    pq.write_table(pa.table([[1], [b"\x80\x04."]], schema=schema), folder / "pickled.parquet")
    job = rig.job(folder, seconds_per_item=0.0, workers={"max": 1}, max_error_rate=0.05)
    failed = rig.run(job, code=4)
    for name in ("truncated.parquet", "pickled.parquet"):
        assert name in failed.text()
    assert "skip_bad_files" in failed.text()
    assert rig.num_parts() == 3
    assert not (rig.output / "_SUCCESS").exists()
    report = json.loads((rig.output / "report.json").read_text())
    named = {Path(each["path"]).name for each in report["file_failures"]}
    assert named == {"truncated.parquet", "pickled.parquet"}
    loads = rig.num_loads()
    rig.run(job, "--set", "input.skip_bad_files=true")
    assert rig.num_loads() == loads
    oracle.check(rig.output, pa.table({"number": list(range(750))}))
    manifest = json.loads((rig.output / "_SUCCESS").read_text())
    assert {Path(path).name for path in manifest["rejected_files"]} == named
    assert manifest["failed"] == 6, "invalid UTF-8 and image bytes, in each of three files"


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_retry_replaces_the_failed_rows_and_rolls_forward_when_killed(rig: Rig, seed: int) -> None:
    dice = random.Random(seed)
    flaky = set(dice.sample(range(3_000), 40))
    texts = [f"text {number}" + " flaky" * (number in flaky) for number in range(3_000)]
    source = rig.folder / "input.parquet"
    pq.write_table(pa.table({"number": list(range(3_000)), "text": texts}), source)
    job = rig.job(source, seconds_per_item=0.0, workers={"max": 1}, max_error_rate=0.05)
    with Observer(rig.output):
        rig.fault("flaky", "flaky")
        rig.run(job)
        errors = pq.read_table(rig.output / "errors.parquet").to_pylist()
        assert {row["number"] for row in errors} == flaky
        assert {row["error"]["type"] for row in errors} == {"TokenizerFailure"}
        before = rig.files()
        (rig.faults / "flaky").unlink()
        touched = sorted({row["part"] for row in errors})
        rig.fault(dice.choice(["kill-before", "kill-after"]), f"data/{dice.choice(touched)}")
        assert rig.start(job, "--retry-errors").wait() == -9
        assert not (rig.output / "_SUCCESS").exists()
        rig.run(job)
    after = rig.files()
    kept = [name for name in before if name.startswith("data/") and name.removeprefix("data/") not in touched]
    assert all(after[name] == before[name] for name in kept)
    assert pq.read_metadata(rig.output / "errors.parquet").num_rows == 0
    oracle.check(rig.output, pq.read_table(source), undisturbed.run(job, rig.folder / "undisturbed"))
