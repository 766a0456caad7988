"""Publishing, with the hub's real client against a stand-in of its API: what goes, what stays, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard, constants

from hfray.errors import DataError, SpecError
from hfray.models.model_card import model_card
from hfray.models.push import push
from hfray.models.result import AdapterFacts, BaseFacts, ResultFacts, read_facts, write_facts
from tests.hub_stand_in import Hub, point_at, serve_hub
from tests.models.support import save_model
from tests.models.test_adapter import logits
from tests.models.test_resolve import load, save_result

FACTS = ResultFacts(kind="train", name="banking", task={"name": "text-classification"}, metrics={"accuracy": 0.9})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub() as served:
        point_at(monkeypatch, served.endpoint, tmp_path / "cache")
        monkeypatch.setenv("HF_TOKEN", served.token)
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished result with all that must not go."""
    out = save_model(tmp_path / "out")
    write_facts(out, FACTS)
    for name in (
        "_SUCCESS", "report.json", "report.html", "spec.yaml", "_work/identity.json", "runs/events", "args.bin",
        "checkpoints/3/model.safetensors", "checkpoint-5/optimizer.pt", ".hfray/lock", "notes.txt", "secrets.env",
        "code.py", "rows.csv", "state.pkl", "LICENSE.pkl",
    ):  # fmt: skip
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("{}")
    (out / "LICENSE").write_text("free")
    (out / "training_curve.svg").write_text("<svg/>")
    return out


def files_of(hub: Hub, name: str, branch: str = "main") -> dict[str, bytes]:
    repo = hub.repos[name]
    root = repo.commits[repo.refs[branch]]
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


MODEL = {
    "LICENSE", "README.md", "config.json", "hfray.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "training_curve.svg",
}  # fmt: skip


def test_the_model_goes_and_nothing_else(hub: Hub, folder: Path) -> None:
    done = push(folder, "org/banking", private=True, message="first")
    files = files_of(hub, "org/banking")
    assert set(files) == set(done.files) == MODEL
    assert all(files[name] == (folder / name).read_bytes() for name in MODEL - {"README.md"})
    assert done.url == f"{hub.endpoint}/org/banking/commit/{done.commit}"
    assert done.commit == hub.repos["org/banking"].refs["main"]
    assert (hub.visibility, hub.messages) == ({"org/banking": "private"}, ["first"])
    card = ModelCard(files["README.md"].decode())
    assert card.data.pipeline_tag == "text-classification"
    assert "![training curve](training_curve.svg)" in card.text
    assert not (folder / "README.md").exists()
    loaded = load("org/banking")
    np.testing.assert_array_equal(logits(loaded), logits(load(folder)))
    assert loaded.facts.revision == done.commit


def test_an_authors_card_stays_and_old_weights_go(hub: Hub, folder: Path) -> None:
    push(folder, "org/banking")
    (folder / "README.md").write_text("---\nlicense: mit\n---\nmine\n")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    done = push(folder, "org/banking")
    files = files_of(hub, "org/banking")
    assert files["README.md"].endswith(b"mine\n")
    assert done.removed == ("model.safetensors",)
    assert "model.safetensors" not in files
    assert hub.visibility == {"org/banking": None}
    assert hub.messages == ["hfray: banking", "hfray: banking"]


def test_to_a_branch(hub: Hub, folder: Path) -> None:
    push(folder, "org/banking", revision="int8")
    assert set(files_of(hub, "org/banking", "int8")) == MODEL
    assert files_of(hub, "org/banking") == {}
    push(folder, "org/banking", revision="int8")


def test_an_adapter_of_a_hub_model(hub: Hub, tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", "AutoModel", labels=())
    save_result(base, tmp_path / "lora", BaseFacts(path="org/base", revision="a" * 40))
    done = push(tmp_path / "lora", "org/lora")
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md", "hfray.json"} <= set(done.files)
    assert ModelCard(files_of(hub, "org/lora")["README.md"].decode()).data.base_model == "org/base"


@pytest.mark.parametrize("home", ["/home/some body", "/home/some body/jürgen", "~/some body"])
def test_no_path_of_this_machine_goes_along(hub: Hub, folder: Path, home: str) -> None:
    merged = AdapterFacts(merged=True, method="LORA", path=f"{home}/lora", content="c" * 64)
    base = BaseFacts(path=f'{home}/"base"', content="d" * 64)
    spec = f"model:\n  path: {home}/lora\ninput:\n  train:\n    path:\n    - {home}/rows.csv\n"
    told = {"base": base, "adapter": merged, "spec": spec, "training_spec": spec, "data": (f"{home}/rows.csv",)}
    write_facts(folder, FACTS.model_copy(update=told))
    push(folder, "org/banking")
    files = files_of(hub, "org/banking")
    assert not any(b"some body" in data for data in files.values())
    found = ResultFacts.of_record(json.loads(files["hfray.json"]), "pushed")
    assert found.base == BaseFacts(path='"base"', content="d" * 64)
    assert found.spec == found.training_spec == "model:\n  path: lora\ninput:\n  train:\n    path:\n    - rows.csv\n"
    assert found.data == ("rows.csv",)


def test_what_only_looks_like_a_path_stays(hub: Hub, folder: Path) -> None:
    base = BaseFacts(path="/m", content="d" * 64)
    spec = "name: /m\nmodel:\n  path: /models/x\n"
    write_facts(folder, FACTS.model_copy(update={"base": base, "labels": ("a/mb", "/m"), "spec": spec}))
    push(folder, "org/banking")
    found = ResultFacts.of_record(json.loads(files_of(hub, "org/banking")["hfray.json"]), "pushed")
    assert found.labels == ("a/mb", "/m")
    assert (found.base, found.spec) == (BaseFacts(path="m", content="d" * 64), "name: /m\nmodel:\n  path: x\n")


def test_a_card_that_training_left_names_the_repository(hub: Hub, folder: Path) -> None:
    (folder / "training_curve.svg").write_text("<svg/>")
    (folder / "README.md").write_text(model_card(FACTS, title=FACTS.name, curve="training_curve.svg"))
    push(folder, "org/banking")
    card = files_of(hub, "org/banking")["README.md"].decode()
    assert "path: org/banking" in card
    assert "![training curve](training_curve.svg)" in card
    (folder / "README.md").write_text("---\nlicense: mit\n---\nMine.")
    push(folder, "org/banking")
    assert files_of(hub, "org/banking")["README.md"] == b"---\nlicense: mit\n---\nMine."


def _break(folder: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "no token":
        monkeypatch.delenv("HF_TOKEN")
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no-such-file"))
    elif how == "wrong token":
        monkeypatch.setenv("HF_TOKEN", "hf_reader")
    elif how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif how == "not finished":
        (folder / "_SUCCESS").unlink()
    elif how == "no weights":
        (folder / "model.safetensors").rename(folder / "model.bin")
    elif how == "no result":
        (folder / "hfray.json").unlink()
    elif how == "local base":
        facts = read_facts(folder)
        assert facts is not None
        adapter = AdapterFacts(merged=False, method="LORA")
        write_facts(folder, facts.model_copy(update={"base": BaseFacts(path="/x"), "adapter": adapter}))
    else:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no token", "no token for the hub: set HF_TOKEN"),
        ("wrong token", "the hub does not know this token"),
        ("offline", "HF_HUB_OFFLINE is set"),
        ("not finished", "it has no _SUCCESS: its job has not finished"),
        ("no weights", "it holds no safetensors weights"),
        ("no result", "it has no hfray.json"),
        ("local base", "a folder that only this machine has; merge it first"),
        ("no folder", "there is no such folder"),
    ],
)
def test_what_is_refused(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, how: str, message: str) -> None:
    _break(folder, how, monkeypatch)
    with pytest.raises(SpecError, match=message):
        push(folder, "org/banking")
    assert hub.repos == {}


def test_names_and_places_that_cannot_be(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="no name of a repository"):
        push(folder, "org/a/b")
    with pytest.raises(SpecError, match="this token may not write there"):
        push(folder, "other/banking")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="the hub cannot be reached"):
        push(folder, "org/banking")


def test_the_token_is_in_no_file(hub: Hub, folder: Path) -> None:
    push(folder, "org/banking")
    assert hub.token.encode() not in b"".join(files_of(hub, "org/banking").values())
    assert hub.token not in json.dumps(hub.log)
