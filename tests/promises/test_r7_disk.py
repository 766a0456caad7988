"""R7: a full disk is an error, never a wrong result."""

from __future__ import annotations

import base64
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.promises import oracle, undisturbed
from tests.promises.rig import Observer, Rig, seeds, within

DISK_BYTES = 64 * 2**20
ANSWER_S = 60.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB; the test skips where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("seed", seeds(1, 5))
def test_full_disk_ends_the_run_and_freed_space_lets_it_finish(rig: Rig, disk: Path, seed: int) -> None:
    dice = random.Random(seed)
    texts = [base64.b64encode(dice.randbytes(3_000)).decode() for _ in range(3_000)]
    source = rig.folder / "input.parquet"
    pq.write_table(pa.table({"number": list(range(len(texts))), "text": texts}), source, row_group_size=500)
    output = disk / "out"
    job = rig.job(source, seconds_per_item=0.001, output={"path": str(output)})
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(DISK_BYTES - dice.randint(1, 6) * 2**20))
    with Observer(output) as observer:
        run = rig.start(job)
        assert run.wait() == 4, run.text()
        failed_at = time.monotonic()
        assert not (output / "_SUCCESS").exists()
        parts = sorted((output / "data").glob("part-*"))
        for part in parts:
            assert pq.read_metadata(part).num_rows == 250, "no short part"
        assert "no space left" in "\n".join(run.text().splitlines()[-20:])
        assert failed_at - run.started_at < within(ANSWER_S)
        assert observer.complete_observations == 0
        ballast.unlink()
        rig.run(job)
    print(f"seed {seed}: {len(parts)} of 12 parts before the disk was full")
    reference = undisturbed.run(job, rig.folder / "undisturbed")
    oracle.check(output, pq.read_table(source), reference)
