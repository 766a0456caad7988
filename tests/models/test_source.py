"""Where models come from: folders, packages, and a hub that a server on loopback stands in for."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from hfray.errors import EngineError, SpecError
from hfray.models.source import resolve_source
from tests.hub_stand_in import Hub, Repo, point_at, serve_hub

OLD, NEW = "0" * 39 + "1", "f" * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of a model; nobody here looks into its weights."""
    root = tmp_path / "model"
    (root / "1_Pooling").mkdir(parents=True)
    (root / "config.json").write_text('{"model_type": "bert"}')
    (root / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (root / "1_Pooling" / "config.json").write_text("{}")
    (root / "README.md").write_text("# A model")
    (root / ".git").mkdir()
    (root / ".git" / "HEAD").write_text("ref: refs/heads/main")
    return root


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    newer = tmp_path / "newer"
    shutil.copytree(folder, newer, ignore=shutil.ignore_patterns(".git"))
    (newer / "config.json").write_text('{"model_type": "bert", "newer": true}')
    with serve_hub() as hub:
        hub.repos["org/name"] = Repo({OLD: folder, NEW: newer}, {"main": NEW, "v1.0": OLD})
        hub.repos["org/closed"] = Repo({OLD: folder}, {"main": OLD}, gated=True)
        point_at(monkeypatch, hub.endpoint, tmp_path / "cache")
        yield hub


def test_a_folder(folder: Path) -> None:
    source = resolve_source(str(folder), None)
    assert source.is_local
    assert source.path == str(folder)
    assert source.files == ("1_Pooling/config.json", "README.md", "config.json", "model.safetensors")
    assert source.has_safetensors
    assert source.read_json("config.json") == {"model_type": "bert"}
    assert source.read_json("nothing.json") is None
    assert Path(source.local_file("model.safetensors")).is_file()
    assert list(source.identity) == ["content"]


def test_a_folder_counts_by_every_byte_that_can_be_loaded(folder: Path) -> None:
    def digest() -> str:
        return resolve_source(str(folder), None).identity["content"]

    first = digest()
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    for place in (0, 5000, len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        weights.write_bytes(changed)
        assert digest() != first
    weights.write_bytes(data)
    os.utime(weights, (1, 1))
    (folder / "README.md").write_text("# The same model, described anew")
    (folder / "pytorch_model.bin").write_bytes(b"never loaded")
    (folder / ".git" / "HEAD").write_text("another")
    assert digest() == first
    moved = folder.rename(folder.parent / "elsewhere")
    assert resolve_source(str(moved), None).identity["content"] == first
    weights = moved / "model.safetensors"
    weights.rename(moved / "other.safetensors")
    assert resolve_source(str(moved), None).identity["content"] != first


def test_a_folder_below_home_or_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve_source("~/model", None).path == str(folder)
    monkeypatch.chdir(folder.parent)
    assert resolve_source("model", None).path == str(folder)


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("./nowhere", "model", "model.path: there is no folder ./nowhere"),
        ("/no/where", "adapter", "model.adapter: there is no folder /no/where"),
        ("some/deep/folder", "model", "model.path: there is no folder some/deep/folder"),
        ("{folder}/config.json", "model", "is a file; name the folder that holds it"),
        ("{folder}/1_Pooling/..", "adapter", "so it is no PEFT adapter; name a whole model as model.path"),
        ("{folder}/.git", "model", "has no config.json"),
        ("package:no_such_package/model", "model", "pip install no-such-package"),
        ("package:os.path/model", "model", "the package 'os.path' is not installed"),
        ("package:hfray/no_folder", "model", "the package 'hfray' has no folder 'no_folder'"),
        ("package:hfray/../tests", "model", "the package 'hfray' has no folder '../tests'"),
        ("package:hfray/tasks", "model", "has no config.json"),
    ],
)
def test_what_is_not_there(folder: Path, path: str, kind: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve_source(path.replace("{folder}", str(folder)), None, kind=kind)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_has_no_revision(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"model\.revision: .* is a local folder"):
        resolve_source(str(folder), "main")


def test_an_adapter_may_stand_for_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert resolve_source(str(tmp_path), None).files == ("adapter_config.json",)


def test_what_the_job_writes_beside_a_model_is_no_part_of_it(folder: Path) -> None:
    (folder / "hfray.json").write_text("{}")
    plain = resolve_source(str(folder), None)
    for name in ("report.json", "_SUCCESS", "spec.yaml", "_work/lease.json", "runs/events", "checkpoints/1/x.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1")
    assert resolve_source(str(folder), None) == plain
    (folder / "hfray.json").write_text("{ }")
    assert resolve_source(str(folder), None).identity != plain.identity


def test_broken_json(folder: Path) -> None:
    (folder / "config.json").write_text("{'model_type'")
    with pytest.raises(SpecError, match=r"config\.json cannot be read .* fetch it again"):
        resolve_source(str(folder), None).read_json("config.json")


def test_a_folder_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "tokenizer.json").symlink_to("/proc/self/mem")  # opens, and fails to read
    with pytest.raises(SpecError, match="cannot be read"):
        resolve_source(str(folder), None)


def install_package(site: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a model in it on the import path; the model's folder."""
    package = site / "weights_in_a_wheel"
    shutil.copytree(model, package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('nothing of the package is run')")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    return package / "model"


def test_a_package(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = install_package(tmp_path / "site", folder, monkeypatch)
    source = resolve_source("package:weights_in_a_wheel/model", None)
    assert source.path == str(installed)
    assert source.identity == resolve_source(str(folder), None).identity


def test_a_package_is_found_where_another_node_has_it(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_package(tmp_path / "driver", folder, monkeypatch)
    source = resolve_source("package:weights_in_a_wheel/model", None)
    elsewhere = install_package(tmp_path / "node", folder, monkeypatch)
    assert source.located().path == str(elsewhere)
    (elsewhere / "config.json").write_text('{"model_type": "bert", "other": 1}')
    with pytest.raises(EngineError, match=r"\(config\.json has changed\); install the same version on all nodes"):
        source.located()


def test_a_folder_stays_where_it_is(folder: Path) -> None:
    source = resolve_source(str(folder), None)
    assert source.located() is source
    os.utime(folder / "model.safetensors", (1, 1))
    (folder / "README.md").write_text("# The same model, described anew")
    assert source.located() is source
    assert pickle.loads(pickle.dumps(source)).located() == source  # noqa: S301 (our own, as it goes to a replica)


@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_a_folder_that_has_changed_since_it_was_checked_is_refused(folder: Path, kind: Any) -> None:
    (folder / "adapter_config.json").write_text("{}")
    source = resolve_source(str(folder), None, kind=kind)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("bert", "gpt2"))  # of the same size
    with pytest.raises(EngineError, match=r"\(config\.json has changed\); put back .* deploy .* again") as caught:
        source.located()
    assert str(caught.value).startswith(f"{kind} {folder} has other files on ")
    (folder / "config.json").write_text(config)
    assert source.located() is source
    for name in "abcd":
        (folder / f"{name}.json").write_text("{}")
    with pytest.raises(EngineError, match=r"\(a\.json is new, b\.json is new, c\.json is new and 1 more\)"):
        source.located()


def test_a_folder_that_cannot_be_read_any_more(folder: Path) -> None:
    source = resolve_source(str(folder), None)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/proc/self/mem")  # opens, and fails to read
    with pytest.raises(EngineError, match="its files cannot be read on"):
        source.located()


def test_of_a_tokenizer_the_weights_beside_it_may_change(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    source = resolve_source(str(folder), None, kind="tokenizer")
    (folder / "model.safetensors").unlink()
    assert source.located() is source


def test_a_hub_model_is_where_its_commit_is(hub: Hub) -> None:
    source = resolve_source("org/name", None)
    assert source.located() is source


@pytest.mark.parametrize(("revision", "commit"), [(None, NEW), ("main", NEW), ("v1.0", OLD), (OLD, OLD)])
def test_a_hub_model_is_pinned_to_its_commit(hub: Hub, revision: str | None, commit: str) -> None:
    source = resolve_source("org/name", revision)
    assert (source.revision, source.identity) == (commit, {"revision": commit})
    assert "model.safetensors" in source.files
    config = source.read_json("config.json")
    assert config is not None
    assert config.get("newer", False) == (commit == NEW)
    assert [line for line in hub.log if "/resolve/" in line][-1] == f"GET /org/name/resolve/{commit}/config.json"


def test_a_branch_that_moves_on_does_not_move_the_source(hub: Hub) -> None:
    source = resolve_source("org/name", None)
    hub.repos["org/name"].refs["main"] = OLD
    assert source.read_json("config.json") == {"model_type": "bert", "newer": True}
    assert resolve_source("org/name", None).revision == OLD


@pytest.mark.parametrize(
    ("path", "revision", "kind", "message"),
    [
        ("org/nothing", None, "model", "model.path: there is no folder and no hub model 'org/nothing'"),
        ("org/nothing", None, "adapter", "model.adapter: there is no folder and no hub model"),
        ("org/name", "v9", "model", "model.revision: hub model org/name has no revision 'v9'"),
        ("org/name", "v9", "adapter", "model.adapter_revision: hub model org/name has no revision 'v9'"),
        ("org/name", None, "adapter", "has no adapter_config.json, so it is no PEFT adapter"),
        ("not a name!", None, "model", "'not a name!' is neither a folder nor a hub id"),
    ],
)
def test_what_the_hub_does_not_have(hub: Hub, path: str, revision: str | None, kind: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve_source(path, revision, kind=kind)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_gated_model_says_what_to_do(hub: Hub) -> None:
    source = resolve_source("org/closed", None)
    with pytest.raises(SpecError, match=r"org/closed is gated; accept its terms on the hub and set HF_TOKEN"):
        source.read_json("config.json")


def test_an_unreachable_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")  # the discard port: nobody listens
    with pytest.raises(SpecError, match=r"the hub cannot be reached .* nor in the local cache"):
        resolve_source("org/name", None)


@pytest.mark.parametrize("why", ["offline", "unreachable"])
def test_without_a_hub_the_cache_answers(hub: Hub, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    online = resolve_source("org/name", None)
    for name in ("config.json", "1_Pooling/config.json"):
        online.read_json(name)
    from huggingface_hub import hf_hub_download

    hf_hub_download("org/name", "config.json")  # a download of the branch, which writes down what it names
    if why == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    with pytest.raises(SpecError, match=r"the local cache has 'org/name' \(revision main\) without its weights"):
        resolve_source("org/name", None)
    monkeypatch.undo()
    point_at(monkeypatch, hub.endpoint, tmp_path / "cache")
    online.local_file("model.safetensors")
    if why == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    requests = len(hub.log)
    for revision in (None, "main", NEW):
        source = resolve_source("org/name", revision)
        assert source.identity == online.identity
        assert source.files == ("1_Pooling/config.json", "config.json", "model.safetensors")
        assert source.read_json("config.json") == {"model_type": "bert", "newer": True}
    with pytest.raises(SpecError, match="nor in the local cache"):
        resolve_source("org/name", OLD)
    if why == "offline":  # a hub that is out of reach is tried several times
        with pytest.raises(SpecError, match=r"tokenizer\.json is not in the local cache"):
            replace(online, files=(*online.files, "tokenizer.json")).read_json("tokenizer.json")
    assert len(hub.log) == requests


def test_offline_a_name_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SpecError, match="neither a folder nor a hub id"):
        resolve_source("not a name!", None)
    with pytest.raises(SpecError, match="HF_HUB_OFFLINE is set, and 'org/name'"):
        resolve_source("org/name", None)


def test_a_full_disk_is_for_the_operator(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is a device that is always full."""
    source = resolve_source("org/name", None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/dev/full/cache")
    with pytest.raises(EngineError, match=r"config\.json could not be downloaded"):
        source.read_json("config.json")


def test_an_index_stands_for_sharded_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    assert not resolve_source(str(folder), None).has_safetensors
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
    assert resolve_source(str(folder), None).has_safetensors
