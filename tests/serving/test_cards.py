"""What a gateway is told of a model, and the adapters of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfray.errors import SpecError
from hfray.serving.cards import with_folder
from hfray.spec.endpoint import EndpointSpec
from tests.models.support import save_decoder, save_model
from tests.serving.office import replica_of


def spec(folder: Path, **changes: object) -> EndpointSpec:
    base = {"model": {"path": "m"}, "task": "text-generation", "adapters_folder": str(folder)}
    return EndpointSpec.model_validate(base | changes)


def adapter(folder: Path, name: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "adapter_config.json").write_text("{}")


def test_each_subfolder_is_an_adapter_and_the_file_names_the_others(tmp_path: Path) -> None:
    for name in ("support", "legal"):
        adapter(tmp_path, name)
    (tmp_path / "notes").mkdir()
    found = with_folder(spec(tmp_path, model={"path": "m", "adapters": {"legal": "elsewhere"}})).model.adapters
    assert {name: each.path for name, each in found.items()} == {
        "support": str(tmp_path / "support"),
        "legal": "elsewhere",
    }


def test_a_folder_without_adapters_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no subfolder with an adapter_config"):
        with_folder(spec(tmp_path))


@pytest.mark.parametrize("link", ["support", "support/adapter_config.json", "support/adapter_model.safetensors"])
def test_a_link_out_of_the_folder_is_an_error(tmp_path: Path, link: str) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "adapters"
    for root in (elsewhere, folder):
        adapter(root, "support")
        (root / "support" / "adapter_model.safetensors").write_bytes(b"weights")
    assert list(with_folder(spec(folder)).model.adapters) == ["support"]
    (folder / link).rename(tmp_path / "away")
    (folder / link).symlink_to(elsewhere / link)
    with pytest.raises(
        SpecError, match=rf"adapters_folder: {folder / link} is a link to what lies outside of {folder}"
    ):
        with_folder(spec(folder))
    named = spec(folder, adapters_folder=None, model={"path": "m", "adapters": {"support": str(elsewhere / "support")}})
    assert list(with_folder(named).model.adapters) == ["support"]


def test_links_inside_of_the_folder_and_to_it_are_none_of_those(tmp_path: Path) -> None:
    """As volumes of Kubernetes have them."""
    adapter(tmp_path / "real" / "versions", "1")
    (tmp_path / "real" / "support").symlink_to("versions/1")
    (tmp_path / "folder").symlink_to("real")
    assert list(with_folder(spec(tmp_path / "folder")).model.adapters) == ["support"]


def test_a_link_to_itself_is_an_error(tmp_path: Path) -> None:
    adapter(tmp_path, "support")
    (tmp_path / "support" / "adapter_model.safetensors").symlink_to("adapter_model.safetensors")
    with pytest.raises(SpecError, match="cannot be read"):
        with_folder(spec(tmp_path))


@pytest.mark.parametrize("name", ["Support", "a b", "-x", "x" * 65, "a\n"])
def test_a_name_that_cannot_stand_in_a_request_is_an_error(tmp_path: Path, name: str) -> None:
    adapter(tmp_path, name)
    with pytest.raises(SpecError, match="cannot be an adapter's name"):
        with_folder(spec(tmp_path))


@pytest.mark.parametrize(
    ("other", "says"),
    [({"adapter": "one"}, "move it into the folder"), ({"device_map": "auto"}, "adapters are on one device")],
)
def test_a_folder_does_not_go_with_one_adapter_or_a_spread_model(
    tmp_path: Path, other: dict[str, str], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        spec(tmp_path, model={"path": "m", **other})


def test_a_card_tells_what_the_model_can(tmp_path: Path) -> None:
    for task, folder, chat in (
        ("text-classification", save_model(tmp_path / "one"), False),
        ("text-generation", save_decoder(tmp_path / "two"), True),
    ):
        replica, card = replica_of(folder, task)
        replica.close()
        assert (card.task, card.has_chat, card.streams) == (task, chat, chat)
        assert card.limits.timeout_s == 60
