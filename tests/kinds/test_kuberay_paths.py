"""Which paths pods see: URLs, ids of the hub, what is on the volume; the others are refused by their keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfray.errors import SpecError
from hfray.kinds.kuberay import Place
from hfray.kinds.kuberay_paths import Volume, parse_volume
from tests.documents import ROOT
from tests.kinds.rendering import DATA, SCORE, SERVE, job_of, pods, service_of, written


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("input.path", "masks.txt"),
        ("input.path", "/masks/*.txt"),
        ("input.path", "file:///masks.txt"),
        ("output.path", "out/masks"),
        ("model.path", "./model"),
        ("model.path", "jobs/data"),
        ("model.path", "~/model"),
        ("model.adapter", "/adapter"),
    ],
)
def test_a_path_of_one_machine_is_refused(key: str, value: str, tmp_path: Path) -> None:
    path = written(tmp_path, SCORE)
    with pytest.raises(SpecError, match=rf"--set {key}: .*only this machine has it; .*--volume CLAIM:PATH"):
        job_of(path, f"{key}={value}", place=Place())


@pytest.mark.parametrize(
    "override",
    ["model.path=package:gt_all/model", "model.path=bert", "input.path=hf://datasets/a/b", "input.path=gs://a/b.txt"],
)
def test_what_all_pods_see_is_taken(override: str, tmp_path: Path) -> None:
    assert job_of(written(tmp_path, SCORE), override, place=Place())


def test_a_data_set_of_the_hub_is_no_folder(tmp_path: Path) -> None:
    path = written(tmp_path, SCORE)
    assert job_of(path, "input.path=org/data", "input.format=huggingface", place=Place())
    with pytest.raises(SpecError, match=r"input\.path"):
        job_of(path, "input.path=org/data", place=Place())


def test_all_wrong_paths_are_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, SCORE.replace("s3://bucket", "/bucket"))
    with pytest.raises(SpecError) as caught:
        job_of(path, place=Place())
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["input.path", "output.path"]


def test_a_volume_is_in_all_pods(tmp_path: Path) -> None:
    path = written(tmp_path, SCORE)
    rendered = job_of(path, "output.path=out/masks", "input.path=/data/a/masks.txt")
    for pod in pods(rendered.manifests[1]):
        assert {"name": "shared", "persistentVolumeClaim": {"claimName": "models"}} in pod["volumes"]
        (container,) = pod["containers"]
        assert container["workingDir"] == "/data"
        assert {"name": "shared", "mountPath": "/data"} in container["volumeMounts"]
    assert any("PersistentVolumeClaim models" in need for need in rendered.needs)


@pytest.mark.parametrize("value", ["/out", "../out", "/data/../out", "~/out", "/database"])
def test_a_path_beside_the_volume_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--set output.path: .*not on the volume, which pods have at /data"):
        job_of(written(tmp_path, SCORE), f"output.path={value}")


def test_volumes() -> None:
    assert parse_volume("my.claim-1:/data/x/") == Volume("my.claim-1", "/data/x")


@pytest.mark.parametrize("text", ["", "claim", "claim:", "claim:data", ":/data", "a b:/data", "c:/", "c:/etc/hfray/x"])
def test_wrong_volumes(text: str) -> None:
    with pytest.raises(SpecError, match="such as models:/data"):
        parse_volume(text)


def test_a_models_paths_are_seen(tmp_path: Path) -> None:
    text = SERVE.replace("path: org/large", "path: org/large, adapters: {a: ./a}").replace(
        "task: text-generation", "task: text-generation\n      adapters_folder: tuned"
    )
    with pytest.raises(SpecError) as caught:
        service_of(tmp_path, text)
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "applications.2.args.model.adapters.a",
        "applications.2.args.adapters_folder",
    ]
    assert service_of(tmp_path, text, DATA)
