"""export, push and cache as processes: arguments, output, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hfray.cli_models import _job
from hfray.errors import SpecError
from hfray.models.result import ResultFacts, write_facts
from hfray.spec.export import ExportJob
from tests.hub_stand_in import serve_hub
from tests.models.support import save_model

HFRAY = Path(sys.executable).with_name("hfray")


def hfray(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HFRAY, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def test_flags_make_the_job_that_a_file_would() -> None:
    model = {"path": "out/Banking Lora", "adapter": "org/lora", "quantization": "nf4"}
    job = _job(model, "out/Banking NF4", "text-classification")
    said = {
        "kind": "export",
        "name": "banking-nf4",
        "task": "text-classification",
        "output": {"path": "out/Banking NF4"},
    }
    assert job == ExportJob.model_validate({**said, "model": model})
    with pytest.raises(SpecError, match="--output: missing"):
        _job(model, None, None)
    with pytest.raises(SpecError, match=r"--task: .*did you mean fill-mask\?"):
        _job(model, "x", "fill-maks")


@pytest.mark.slow
def test_mistakes_of_an_export(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    (tmp_path / "job.yaml").write_text("kind: export\nname: x\nmodel: {path: model}\noutput: {path: model}\n")
    for arguments, message in (
        (["model"], "--output: missing"),
        (["nothing/at/all", "--output", "x"], "there is no folder nothing/at/all"),
        (["job.yaml", "--dtype", "bfloat16"], "override it with hfray run job.yaml --set"),
        (["model", "--output", "x", "--quantization", "int3"], "int3"),
    ):
        done = hfray("export", *arguments, cwd=tmp_path)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["job.yaml", "model"]


@pytest.mark.slow
def test_published_and_found_in_the_cache(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "out")
    write_facts(folder, ResultFacts(kind="train", name="x", task={"name": "text-classification"}))
    (folder / "_SUCCESS").write_text("{}")
    with serve_hub() as hub:
        place = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "home"),
        }
        refused = hfray("push", "out", "org/x", cwd=tmp_path, **place)
        assert (refused.returncode, "no token for the hub" in refused.stderr) == (2, True), refused.stderr
        done = hfray("push", "out", "org/x", "--private", cwd=tmp_path, HF_TOKEN=hub.token, **place)
        assert done.returncode == 0, done.stderr
        commit = hub.repos["org/x"].refs["main"]
        assert f"published  {hub.endpoint}/org/x/commit/{commit}\n" in done.stdout
        assert hub.visibility == {"org/x": "private"}
        code = f"from huggingface_hub import hf_hub_download as get; get('org/x', 'config.json', revision='{commit}')"
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **place})
    listed = json.loads(hfray("cache", "list", "--json", cwd=tmp_path, **place).stdout)
    assert [(each["repo"], each["revision"]) for each in listed] == [("org/x", commit)]
    lines = hfray("cache", "list", cwd=tmp_path, **place).stdout.splitlines()
    assert lines[1].split()[:2] == ["org/x", commit[:12]]
    sizes = json.loads(hfray("cache", "size", "--json", cwd=tmp_path, **place).stdout)
    assert sizes["cache"]["size_bytes"] == listed[0]["size_bytes"] > 0
    assert "1 revision would be deleted" in hfray("cache", "prune", "org/x", "--dry-run", cwd=tmp_path, **place).stdout
    assert "0 revisions deleted" in hfray("cache", "prune", "--older-than", "1h", cwd=tmp_path, **place).stdout
    assert "1 revision deleted" in hfray("cache", "prune", commit[:8], cwd=tmp_path, **place).stdout
    assert json.loads(hfray("cache", "list", "--json", cwd=tmp_path, **place).stdout) == []
