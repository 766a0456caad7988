"""`deploy/`: the manifests are what hfray renders, and the image has what the project pins. No cluster, no Docker."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import hfray
from hfray.cli import app
from hfray.kinds.kuberay_pods import USER_ID
from tests.documents import ROOT
from tests.kinds.kuberay_schemas import problems

MANIFESTS = sorted((ROOT / "deploy" / "kuberay").glob("*.yaml"))
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
CONSTRAINTS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


# -- manifests


def test_there_is_one_of_each_kind() -> None:
    kinds = {list(yaml.safe_load_all(path.read_text("utf-8")))[-1]["kind"] for path in MANIFESTS}
    assert kinds == {"RayCluster", "RayJob", "RayService"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_manifest_is_what_its_first_line_prints(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = path.read_text("utf-8")
    mark, program, *arguments = shlex.split(text.splitlines()[0])
    assert (mark, program) == ("#", "hfray")
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.stdout == text, f"render it again: hfray {shlex.join(arguments)} > {path.relative_to(ROOT)}"


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_the_operator_takes_a_manifest(path: Path) -> None:
    for manifest in yaml.safe_load_all(path.read_text("utf-8")):
        assert problems(manifest) == []


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_ray_and_hfray_are_those_of_the_image(path: Path) -> None:
    text = path.read_text("utf-8")
    assert set(re.findall(r"rayVersion: (\S+)", text)) == {CONSTRAINTS["ray"]}
    assert set(re.findall(r"image: (\S+)", text)) == {f"hfray:{hfray.__version__}"}


# -- the image


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of each instruction, comments and continuations taken out."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for name, arguments in instructions():
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, arguments))
    return found


def given(stage: list[tuple[str, str]], name: str) -> list[str]:
    return [arguments for each, arguments in stage if each == name]


def test_all_stages_begin_with_the_same_pinned_python() -> None:
    bases = [given(stage, "FROM")[0].split()[0] for stage in stages()]
    assert set(bases) == {"python:${PYTHON}-slim-bookworm"}
    (python,) = (arguments for name, arguments in instructions() if name == "ARG" and arguments.startswith("PYTHON="))
    major, minor, patch = map(int, python.removeprefix("PYTHON=").split("."))
    least = tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
    assert least == (major, minor)
    assert patch >= 0


def test_what_is_copied_is_there_and_travels() -> None:
    ignore = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    kept = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    copied = [name for line in given(stages()[0], "COPY") for name in line.split()[:-1]]
    assert "*" in ignore
    for name in copied:
        assert (ROOT / name).exists(), name
        assert any(fnmatch.fnmatch(name, pattern) for pattern in kept), name
    assert sorted(kept) == sorted(copied)
    needed = {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "constraints.txt", "hfray"}
    assert needed <= set(copied)


def test_versions_are_those_of_the_constraints() -> None:
    """No version stands in the file but Python's and, in its comment, hfray's own."""
    installs = [each for line in given(stages()[0], "RUN") for each in line.split(";") if "pip install" in each]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in each for each in installs)
    assert not re.search(r"[a-z]\s*[=><~]=\s*\d", " ".join(installs))
    assert set(re.findall(r"--tag hfray:(\d+\.\d+\.\d+)", DOCKERFILE.read_text("utf-8"))) == {hfray.__version__}
    for extra in re.findall(r"'\.\[(\w+)\]'", " ".join(installs)):
        assert extra in PROJECT["optional-dependencies"]


def test_the_gpu_build_has_the_same_torch(tmp_path: Path) -> None:
    (expression,) = re.findall(r"sed -i '([^']+)' constraints.txt", DOCKERFILE.read_text("utf-8"))
    text = (ROOT / "constraints.txt").read_text("utf-8")
    done = subprocess.run(["sed", expression], input=text, capture_output=True, text=True, check=True).stdout
    changed = [(a, b) for a, b in zip(text.splitlines(), done.splitlines(), strict=True) if a != b]
    assert changed == [(f"torch=={CONSTRAINTS['torch']}", f"torch=={CONSTRAINTS['torch'].removesuffix('+cpu')}")]


@pytest.mark.parametrize(
    ("torch", "index", "returncode", "pip"),
    [
        ("cuda", "", 0, "--no-deps torch"),
        ("cpu", "INDEX", 0, "--no-deps --index-url INDEX torch"),
        ("cpu", "", 2, ""),
        ("rocm", "", 1, ""),
    ],
)
def test_the_torch_argument(torch: str, index: str, returncode: int, pip: str, tmp_path: Path) -> None:
    """The shell of the instruction, with a pip that prints."""
    (script,) = (line for line in given(stages()[0], "RUN") if "pip install" in line)
    fake = tmp_path / "pip"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    (tmp_path / "constraints.txt").write_text("torch==1.0+cpu\n")
    done = subprocess.run(
        ["sh", "-c", script.replace("/opt/hfray/bin/pip", str(fake))],
        cwd=tmp_path,
        env={"TORCH": torch, "TORCH_INDEX": index, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == returncode, done.stderr
    assert pip in done.stdout
    assert (tmp_path / "constraints.txt").read_text() == f"torch==1.0{'' if torch == 'cuda' else '+cpu'}\n"


def test_the_last_stage_has_no_tools_and_no_root() -> None:
    last = stages()[-1]
    assert given(last, "USER") == [f"{USER_ID}:{USER_ID}"]
    assert f"useradd --uid {USER_ID} " in " ".join(given(last, "RUN"))
    assert given(last, "COPY") == ["--from=build /opt/hfray /opt/hfray"]
    packages = re.findall(r"apt-get install (.*?) &&", " ".join(given(last, "RUN")))
    assert [word for words in packages for word in words.split() if not word.startswith("-")] == ["libgomp1"]
    assert "PATH=/opt/hfray/bin:$PATH" in given(last, "ENV")[0]
    assert [name for name, _ in last].index("USER") > max(i for i, (name, _) in enumerate(last) if name == "RUN")


def test_nothing_secret_is_built_in() -> None:
    assert not re.search(r"TOKEN|PASSWORD|SECRET|_KEY", DOCKERFILE.read_text("utf-8"))
