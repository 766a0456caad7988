"""R7: a full disk is an error, never a wrong result.

The disks that scoring writes to: the output (parts, and the spool of a compressed input), the temporary folder, the
cache of models, and the folder of a Ray that the command starts itself. Rows never enter Ray's object store, so nothing
is ever spilled there; what can run full is its session folder (sockets, logs, ports), without which no process of Ray
starts.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfray.data import images
from hfray.data.ledger import Ledger
from hfray.errors import EngineError
from hfray.kinds.cluster import Cluster
from hfray.kinds.indexing import index_input
from hfray.spec.sections import InputSpec
from tests.hub_stand_in import Repo, serve_hub
from tests.promises import oracle, undisturbed
from tests.promises.disk import fill
from tests.promises.rig import Observer, Rig, Run, seeds, within

ANSWER_S = 60.0
DATA_ERROR, ENGINE_ERROR = 4, 5
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def check_failure(run: Run, output: Path, code: int, since: float, *, cause: str = "no space left") -> list[Path]:
    """The run ends in time with this exit code and says why; returns the parts, which are whole."""
    assert run.wait(2 * within(ANSWER_S)) == code, run.text()
    took_s = time.monotonic() - since
    assert not (output / "_SUCCESS").exists()
    parts = sorted((output / "data").glob("part-*"))
    for part in parts:
        assert pq.read_metadata(part).num_rows == 250, "no short part"
    assert cause in "\n".join(run.text().splitlines()[-20:]), run.text()
    assert took_s < within(ANSWER_S)
    return parts


@pytest.mark.parametrize("seed", seeds(1, 5))
def test_full_disk_ends_the_run_and_freed_space_lets_it_finish(rig: Rig, disk: Path, seed: int) -> None:
    dice = random.Random(seed)
    texts = [base64.b64encode(dice.randbytes(3_000)).decode() for _ in range(3_000)]
    source = rig.folder / "input.parquet"
    pq.write_table(pa.table({"number": list(range(len(texts))), "text": texts}), source, row_group_size=500)
    output = disk / "out"
    job = rig.job(source, seconds_per_item=0.001, output={"path": str(output)})
    ballast = fill(disk, dice.randint(1, 6) * 2**20)
    with Observer(output) as observer:
        run = rig.start(job)
        parts = check_failure(run, output, DATA_ERROR, run.started_at)
        assert observer.complete_observations == 0
        ballast.unlink()
        rig.run(job)
    print(f"seed {seed}: {len(parts)} of 12 parts before the disk was full")
    reference = undisturbed.run(job, rig.folder / "undisturbed")
    oracle.check(output, pq.read_table(source), reference)


def committed(rig: Rig, part: str) -> bool:
    return (rig.output / "data" / f"{part}.parquet").exists()


@pytest.mark.parametrize("seed", seeds(1, 5))
def test_no_space_at_the_sync_or_the_link_of_a_commit(rig: Rig, seed: int) -> None:
    """First of a part, which a worker commits, then of `_SUCCESS`: each alone ends the run, nothing half is seen."""
    dice = random.Random(seed)
    source = rig.input(2_000)
    job = rig.job(source)
    with Observer(rig.output) as observer:
        for fault, of_a_part in [
            (("full-fsync", "full-link")[seed % 2], True),
            (("full-link", "full-fsync")[seed % 2], True),
            ("full-fsync", False),
            ("full-link", False),
        ]:
            missing = [name for name in (f"part-{part:08d}" for part in range(8)) if not committed(rig, name)]
            file = dice.choice(missing) if of_a_part else "_SUCCESS"
            rig.fault(fault, file)
            run = rig.start(job)
            parts = check_failure(run, rig.output, DATA_ERROR, run.started_at)
            print(f"seed {seed}: {fault} of {file}: {len(parts)} of 8 parts")
            assert not committed(rig, file)
            (rig.faults / fault).unlink()
        assert observer.complete_observations == 0
        rig.run(job)
    oracle.check(rig.output, pq.read_table(source), undisturbed.run(job, rig.folder / "undisturbed"))


@pytest.mark.parametrize("seed", seeds(1, 5))
def test_full_disk_under_the_spool_loses_no_file(rig: Rig, disk: Path, seed: int) -> None:
    """A compressed file is spooled beside the output. That there was no room for it is no fault of the file: it must
    not count as one that cannot be read, which a job may leave out."""
    dice = random.Random(seed)
    small = [{"number": number, "text": f"text {number}"} for number in range(250)]
    large = [{"number": number, "text": f"{number} " * 800} for number in range(250, 2_250)]
    for name, rows in (("a.jsonl.gz", small), ("b.jsonl.gz", large)):
        with gzip.open(rig.folder / name, "wt", compresslevel=1) as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    output = disk / "out"
    paths = {"path": [str(rig.folder / "a.jsonl.gz"), str(rig.folder / "b.jsonl.gz")], "skip_bad_files": True}
    job = rig.job(rig.folder, input=paths, output={"path": str(output)})
    ballast = fill(disk, dice.randint(1, 6) * 2**20)
    with Observer(output) as observer:
        run = rig.start(job)
        assert check_failure(run, output, ENGINE_ERROR, run.started_at) == []
        assert observer.complete_observations == 0
        ballast.unlink()
        rig.run(job)
    reference = undisturbed.run(job, rig.folder / "undisturbed")
    oracle.check(output, pa.Table.from_pylist(small + large), reference)


def test_full_temporary_folder_is_no_fault_of_the_images(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long listing of images waits in the temporary folder; here a short one."""
    (tmp_path / "images").mkdir()
    for number in range(2_000):
        (tmp_path / "images" / f"{number:08d}.png").touch()
    spec = InputSpec(path=(str(tmp_path / "images"),), format="images", skip_bad_files=True)
    ledger = Ledger(str(tmp_path / "out"), "parquet", "")
    monkeypatch.setattr(images, "_LISTING_BYTES", 1_000)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    ballast = fill(disk)
    with pytest.raises(EngineError, match=r"\(TMPDIR\): no space left"):
        index_input(spec, 250, ledger, Cluster(), lambda phase: None)
    ballast.unlink()
    plan, failures = index_input(spec, 250, ledger, Cluster(), lambda phase: None)
    assert (plan.num_rows, failures) == (2_000, {})


@pytest.mark.parametrize("seed", seeds(1, 5))
def test_full_cache_of_models_ends_the_run_and_freed_space_lets_it_finish(
    rig: Rig, disk: Path, model: Path, seed: int
) -> None:
    """Once without room for the configuration, which the driver fetches, once without room for the weights."""
    dice = random.Random(seed)
    source = rig.input(1_000)
    weights = (model / "model.safetensors").stat().st_size
    with serve_hub() as hub:
        hub.repos["org/name"] = Repo({COMMIT: model}, {"main": COMMIT})
        rig.fault("hub", f"{hub.endpoint}\n{disk / 'hub'}")
        job = rig.job(source, seconds_per_item=None, model={"path": "org/name"})
        with Observer(rig.output) as observer:
            for spare_bytes in (0, 2**16 + dice.randrange(weights // 2)):
                ballast = fill(disk, spare_bytes)
                run = rig.start(job)
                cause = "No space left on device"  # the words of the hub's client
                assert check_failure(run, rig.output, ENGINE_ERROR, run.started_at, cause=cause) == []
                ballast.unlink()
            assert observer.complete_observations == 0
            rig.run(job)
    local = rig.job(source, seconds_per_item=None, name="local")
    oracle.check(rig.output, pq.read_table(source), undisturbed.run(local, rig.folder / "undisturbed"))


@pytest.mark.parametrize(
    "full_at",
    [
        pytest.param("checking", marks=pytest.mark.slow),
        pytest.param("starting workers", marks=pytest.mark.chaos),
        pytest.param("part-", marks=pytest.mark.slow),
    ],
)
def test_full_folder_of_ray_ends_the_run_or_does_not_matter(rig: Rig, disk: Path, full_at: str) -> None:
    """Full before Ray starts, or while its workers do: they cannot. Full once they run: they need it no more."""
    source = rig.input(2_000)
    job = rig.job(source, seconds_per_item=0.004)
    where = {"local": True, "env": {"RAY_TMPDIR": str(disk)}}
    if full_at == "checking":
        fill(disk)
    with Observer(rig.output):
        run = rig.start(job, **where)
        rig.wait_for(lambda: rig.num_parts() if full_at == "part-" else full_at in run.text(), run)
        full_since = time.monotonic()
        ballast = fill(disk) if full_at != "checking" else disk / "ballast"
        if full_at != "part-" or run.wait():
            check_failure(run, rig.output, ENGINE_ERROR, full_since)
        print(f"{full_at}: exit code {run.wait()} {time.monotonic() - full_since:.1f} s later")
        ballast.unlink()
        rig.run(job, **where)
    oracle.check(rig.output, pq.read_table(source), undisturbed.run(job, rig.folder / "undisturbed"))
