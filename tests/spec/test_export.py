"""What an export job may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hfray.errors import SpecError
from hfray.spec.export import ExportJob
from hfray.spec.fields import identity_of
from hfray.spec.load import load_job

JOB: dict[str, Any] = {
    "kind": "export",
    "name": "small",
    "model": {"path": "out/lora", "quantization": "nf4"},
    "output": {"path": "out/small"},
}


def load(folder: Path, **changes: Any) -> ExportJob:
    (folder / "job.yaml").write_text(yaml.safe_dump(JOB | changes, sort_keys=False))
    job = load_job(folder / "job.yaml")
    assert isinstance(job, ExportJob)
    return job


def test_a_job(tmp_path: Path) -> None:
    job = load(tmp_path, workers={"cpus": 2, "memory_gb": 8})
    assert (job.subject, job.model.as_model().device, job.model.as_model().quantization) == ("nf4", "cpu", "none")
    assert load(tmp_path, model={"path": "x", "dtype": "bfloat16"}).subject == "bfloat16"
    plain = load(tmp_path, name="other", output={"path": "elsewhere"})
    assert identity_of(job) == identity_of(plain)
    assert identity_of(job) != identity_of(load(tmp_path, labels=["a", "b"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "text-clasification"}, "job.yaml:8: task: .*did you mean text-classification?"),
        ({"model": {"path": "x", "adapter_revision": "v1"}}, r"model.adapter_revision: of what\? There is no"),
        ({"model": {"path": "x", "merge_adapter": False}}, "model.merge_adapter: unknown key"),
        ({"workers": {"min": 2}}, "workers.min: unknown key"),
        ({"labels": []}, "labels: "),
    ],
)
def test_mistakes(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(tmp_path, **changes)
