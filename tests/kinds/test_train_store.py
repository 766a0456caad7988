"""A training job whose output is an object store: checkpoints, logs and the model are there, and a killed run goes on
from there. A command of its own, with Ray Train and two workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load

from hfray.data.storage import Storage
from tests.documents import ROOT
from tests.models.support import save_model
from tests.s3_stand_in import s3, s3_endpoint

__all__ = ["s3", "s3_endpoint"]
pytestmark = pytest.mark.slow
PATIENCE_S = 240


def test_a_killed_run_goes_on_from_a_bucket(s3: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["ab", "cd"] * 40, "label": ["a", "b"] * 40}), tmp_path / "rows.parquet")
    job = {
        "kind": "train", "name": "bucket", "task": "text-classification",
        "model": {"path": str(save_model(tmp_path / "model"))}, "input": {"train": str(tmp_path / "rows.parquet")},
        "global_batch_size": 8, "workers": {"min": 2, "cpus": 0.5}, "output": {"path": f"{s3}/out"},
        "trainer": {"max_steps": 40, "save_steps": 5, "per_device_train_batch_size": 2, "logging_steps": 1},
    }  # fmt: skip
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "hfray.cli", "run", str(path), "--quiet"]
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {"PYTHONWARNINGS": "ignore"}
    output = Storage(f"{s3}/out")
    with subprocess.Popen(command, cwd=ROOT, env=env) as run:
        deadline = time.monotonic() + PATIENCE_S
        while not any(info.path.endswith("manifest.json") for info in output.list("_work/checkpoints")):
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        run.send_signal(signal.SIGKILL)
    assert not output.exists("_SUCCESS")
    done = subprocess.run(command, cwd=ROOT, env=env, timeout=PATIENCE_S, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert output.exists("_SUCCESS")
    assert output.names("runs")
    assert not output.names("_work/checkpoints")
    training = json.loads(output.read_bytes("report.json"))["training"]
    assert training["resumed_from"]
    assert [point["step"] for point in training["points"]] == list(range(1, 41))
    weights = load(output.read_bytes("model.safetensors"))
    assert all(torch.isfinite(each).all() for each in weights.values())
