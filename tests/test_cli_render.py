"""`hfray render kuberay` as a command: what it prints, and how it refuses."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hfray.cli import app
from hfray.errors import SpecError
from tests.kinds.kuberay_schemas import problems
from tests.spec.jobs import GOOD


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(GOOD)
    return tmp_path


def rendered(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["render", "kuberay", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*arguments: str) -> str:
    with pytest.raises(SpecError) as caught:
        CliRunner().invoke(app, ["render", "kuberay", *arguments], catch_exceptions=False)
    return str(caught.value)


ALL_OPTIONS = (
    "--set", "name=it's mine", "--image", "registry.example:5000/hfray@sha256:12", "--name", "mine",
    "--namespace", "ml", "--volume", "data:/data",
)  # fmt: skip


def test_the_first_line_is_the_command(folder: Path) -> None:
    arguments = ["job.yaml", *(each.replace("it's mine", "mine") for each in ALL_OPTIONS)]
    first = rendered(*arguments).splitlines()[0]
    assert shlex.split(first) == ["#", "hfray", "render", "kuberay", *arguments]
    quoted = rendered("job.yaml", "--set", "input.where=text != 'a b'", "--volume", "data:/data")
    assert rendered(*shlex.split(quoted.splitlines()[0])[4:]) == quoted


def test_a_line_break_in_the_command_stays_in_the_comment(folder: Path) -> None:
    text = rendered("job.yaml", "--set", "input.where=text !=\n'a'", "--volume", "data:/data")
    before = text[: text.index("apiVersion")]
    assert all(line.startswith("# ") for line in before.splitlines())


def test_options_are_in_the_manifests(folder: Path) -> None:
    config, job = yaml.safe_load_all(rendered("job.yaml", *ALL_OPTIONS[2:]))
    assert problems(config) == problems(job) == []
    assert job["metadata"] == {"name": "mine", "namespace": "ml"}
    assert "registry.example:5000/hfray@sha256:12" in str(job)
    assert "'claimName': 'data'" in str(job)


def test_a_cluster(folder: Path) -> None:
    (cluster,) = yaml.safe_load_all(rendered("--cluster", "--set", "workers.max=2"))
    assert problems(cluster) == []
    assert (cluster["kind"], cluster["metadata"]["name"]) == ("RayCluster", "hfray")


def test_one_thing_at_a_time(folder: Path) -> None:
    for arguments in ([], ["job.yaml", "--cluster", "--set", "workers.max=2"]):
        assert "name one file, a job or a Ray Serve file, or else say --cluster" in refused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["jab.yaml"], "jab.yaml: there is no such file, did you mean job.yaml?"),
        (["job.yaml", "--set", "workers.mox=2"], "--set workers.mox: unknown key"),
        (["job.yaml", "--set", "input.where=text >"], "--set input.where: "),
        (["job.yaml", "--namespace", "My Space"], "--namespace My Space: "),
        (["job.yaml", "--image", "a b"], "--image 'a b': "),
        (["job.yaml", "--image", "a\n- b"], "--image 'a\\n- b': "),
        (["job.yaml", "--volume", "data"], "--volume data: "),
        (["serve.yaml", "--set", "a=b"], "--set a=b: is for jobs; change serve.yaml itself"),
    ],
)
def test_mistakes(arguments: list[str], said: str, folder: Path) -> None:
    (folder / "serve.yaml").write_text("applications: []\n")
    assert said in refused(*arguments)


@pytest.mark.slow
def test_a_refusal_as_a_process(folder: Path) -> None:
    command = [sys.executable, "-m", "hfray.cli", "render", "kuberay", "job.yaml"]
    root = Path(__file__).parent.parent
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(root), "PATH": ""}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "--volume CLAIM:PATH" in done.stderr
