"""An export as its user runs it: once, again, started over, killed, and where it must not write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from hfray.data.ledger import Ledger
from hfray.errors import SpecError
from hfray.kinds import export as export_module
from hfray.kinds.cluster import Cluster
from hfray.kinds.export import ExportRun
from hfray.kinds.progress import Progress
from hfray.kinds.report import Report
from hfray.models.result import read_facts
from hfray.spec.export import ExportJob
from tests.data.conftest import s3, s3_endpoint  # noqa: F401
from tests.models.support import save_model
from tests.models.test_load import load, predict

torch.set_num_threads(1)

HFRAY = Path(sys.executable).with_name("hfray")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("kind-export") / "model")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task runs in this process, and no Ray is started."""
    monkeypatch.setattr(Cluster, "connect", lambda self: None)
    monkeypatch.setattr(Cluster, "probe", lambda self, urls, output: None)
    monkeypatch.setattr(export_module, "pool_size", lambda cluster, workers: (1, 1))
    monkeypatch.setattr(export_module, "run_task", lambda worker, lease, function, *args: function(*args))


def run(model: Path, output: str, *, restart: bool = False, **changes: Any) -> Report:
    section = {"path": str(model), **changes}
    job = ExportJob.model_validate({"kind": "export", "name": "x", "model": section, "output": {"path": output}})
    with Progress(Console(quiet=True), quiet=True) as progress:
        return ExportRun(job, progress, job_path="", log_path="", debug=False).run(restart=restart, retry_errors=False)


@pytest.mark.slow
def test_on_ray(model: Path, tmp_path: Path) -> None:
    job = {
        "kind": "export",
        "name": "small",
        "model": {"path": str(model), "quantization": "nf4", "dtype": "float32"},
        "output": {"path": "small"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    done = subprocess.run(
        [HFRAY, "run", "job.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [{"text": text} for text in ("hello world", "a cold day", "42")]
    now = predict(load(model, quantization="nf4"), "text-classification", rows)
    assert predict(load(tmp_path / "small"), "text-classification", rows) == now
    assert not (tmp_path / "small" / "data").exists()
    manifest = json.loads((tmp_path / "small" / "_SUCCESS").read_text())
    assert set(manifest["files"]) >= {"config.json", "hfray.json", "model.safetensors", "tokenizer.json"}


@pytest.mark.usefixtures("here")
def test_once_again_other_and_started_over(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = run(model, str(output), dtype="bfloat16")
    assert (first.status, first.model is not None and first.model.dtype) == ("complete", "bfloat16")
    files = {file: file.stat().st_mtime_ns for file in output.rglob("*")}
    assert run(model, str(output), dtype="bfloat16").message == "already complete: nothing to do"
    assert {file: file.stat().st_mtime_ns for file in output.rglob("*")} == files
    with pytest.raises(SpecError, match=r'spec.model.dtype: "bfloat16" -> "float16"'):
        run(model, str(output), dtype="float16")
    run(model, str(output), restart=True, dtype="float16")
    facts = read_facts(output)
    assert facts is not None
    assert facts.dtype == "float16"
    assert "dtype: float16" in (output / "spec.yaml").read_text()


@pytest.mark.usefixtures("here")
def test_models_of_others_are_not_written_over(model: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other")
    for restart in (False, True):
        with pytest.raises(SpecError, match=r"output\.path: .* holds files that this job has not written"):
            run(model, str(other), restart=restart)
    assert not (other / "_SUCCESS").exists()
    run(model, str(tmp_path / "out"))
    (tmp_path / "out" / "README.md").write_text("mine")
    run(model, str(tmp_path / "out"), restart=True, dtype="bfloat16")
    assert (tmp_path / "out" / "README.md").read_text() == "mine"
    with pytest.raises(SpecError, match="is the model itself"):
        run(tmp_path / "out", str(tmp_path / "out"), restart=True)
    (tmp_path / "out" / "_work" / "published.json").unlink()  # as if another kind of job had put the model there
    with pytest.raises(SpecError, match="holds files that this job has not written"):
        run(model, str(tmp_path / "out"), restart=True)
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.usefixtures("here")
def test_killed_it_is_no_model_and_the_same_command_mends_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(export_module, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            run(model, str(output))
    assert not {"config.json", "model.safetensors", "_SUCCESS"} & {file.name for file in output.iterdir()}
    assert json.loads((output / "report.json").read_text())["status"] == "interrupted"
    run(model, str(output))
    assert {"config.json", "model.safetensors", "_SUCCESS"} <= {file.name for file in output.iterdir()}


@pytest.mark.usefixtures("here")
def test_to_an_object_store(model: Path, request: pytest.FixtureRequest) -> None:
    bucket = request.getfixturevalue("s3")
    run(model, f"{bucket}/out", quantization="int8")
    ledger = Ledger(f"{bucket}/out", "parquet", "")
    manifest = ledger.success()
    assert manifest is not None
    for name, size in manifest["files"].items():
        assert ledger.storage.size(name) == size
    assert json.loads(ledger.read("hfray.json"))["quantization"] == "int8"
