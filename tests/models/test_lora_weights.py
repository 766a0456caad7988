"""What an adapter's files hold, by PEFT's own words; those that cannot share a model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hfray.errors import SpecError
from hfray.models.lora_weights import check_lora, read_lora
from tests.engines.continuous.support import model_of
from tests.models.lora_support import save_lora, source_of

LINEAR = ["q_proj", "down_proj"]


def test_layers_and_their_scales_are_pefts(tmp_path: Path) -> None:
    adapted = save_lora(
        model_of("llama"), tmp_path, target_modules=LINEAR, use_rslora=True,
        rank_pattern={"down_proj": 2}, alpha_pattern={"layers.1.self_attn.q_proj": 9},
    )  # fmt: skip
    weights = read_lora(source_of(tmp_path), model_of("llama"), "cpu")
    assert weights.heads == {}
    theirs = {
        name.removeprefix("base_model.model."): module
        for name, module in adapted.named_modules()
        if hasattr(module, "lora_A")
    }
    assert set(weights.layers) == set(theirs)
    for name, layer in weights.layers.items():
        assert layer.scale == pytest.approx(theirs[name].scaling["default"]), name
        assert torch.equal(layer.a, theirs[name].lora_A["default"].weight)
        assert torch.equal(layer.b, theirs[name].lora_B["default"].weight)
    assert len({layer.scale for layer in weights.layers.values()}) == 3


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"use_dora": True}, "use_dora is more than plain LoRA"),
        ({"bias": "lora_only"}, "bias is more than plain LoRA"),
        ({"modules_to_save": ["lm_head"]}, "brings whole modules"),
    ],
)
def test_more_than_lora_is_refused_before_anything_is_loaded(
    tmp_path: Path, settings: dict[str, Any], says: str
) -> None:
    save_lora(model_of("llama"), tmp_path, target_modules=LINEAR, **settings)
    with pytest.raises(SpecError, match=f"{says}.*as model.adapter"):
        check_lora(source_of(tmp_path), generates=True)


def test_other_methods_are_refused(tmp_path: Path) -> None:
    save_lora(model_of("llama"), tmp_path, target_modules=LINEAR)
    config = tmp_path / "adapter_config.json"
    config.write_text(config.read_text().replace('"LORA"', '"IA3"'))
    with pytest.raises(SpecError, match="IA3 cannot share its model"):
        check_lora(source_of(tmp_path), generates=True)


def test_a_head_is_for_tasks_that_classify(tmp_path: Path) -> None:
    save_lora(model_of("llama"), tmp_path, target_modules=LINEAR, modules_to_save=["lm_head"])
    assert check_lora(source_of(tmp_path), generates=False)
    assert not check_lora(_plain(tmp_path / "plain"), generates=False)


def _plain(folder: Path) -> Any:
    save_lora(model_of("llama"), folder, target_modules=LINEAR)
    return source_of(folder)


@pytest.mark.parametrize(
    ("rename", "says"),
    [
        (("layers.1.", "layers.7."), "it has no place for model.layers.7"),
        (("lora_A.weight", "lora_magnitude"), "it has no place for"),
    ],
)
def test_weights_without_a_place_are_refused(tmp_path: Path, rename: tuple[str, str], says: str) -> None:
    _plain(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({key.replace(*rename): value for key, value in load_file(file).items()}, file)
    with pytest.raises(SpecError, match=says):
        read_lora(source_of(tmp_path), model_of("llama"), "cpu")


def test_weights_of_other_sizes_are_refused(tmp_path: Path) -> None:
    _plain(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({key: value[..., :3].contiguous() for key, value in load_file(file).items()}, file)
    with pytest.raises(SpecError, match="has other sizes, or is no linear layer"):
        read_lora(source_of(tmp_path), model_of("llama"), "cpu")


def test_the_layer_of_the_scores_and_damaged_files_are_refused(tmp_path: Path) -> None:
    model = copy.deepcopy(model_of("llama"))
    save_lora(model, tmp_path / "head", target_modules=["lm_head"])
    with pytest.raises(SpecError, match="changes lm_head, the layer of the scores"):
        read_lora(source_of(tmp_path / "head"), model, "cpu")
    source = _plain(tmp_path / "plain")
    (tmp_path / "plain" / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(SpecError, match="cannot be read"):
        read_lora(source, model, "cpu")
