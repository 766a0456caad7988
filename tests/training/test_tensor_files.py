from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from hfray.training.tensor_files import facts_of, write_tensors


def test_the_library_reads_what_was_written(tmp_path):
    flat = torch.arange(24, dtype=torch.float32)
    tensors = {
        "of a flat one": flat.narrow(0, 5, 7),
        "overlapping": flat.narrow(0, 0, 8),
        "transposed": flat.view(4, 6).t(),
        "bf16": torch.randn(3, 5).to(torch.bfloat16),
        "fp16": torch.randn(2).half(),
        "scalar": torch.tensor(7.0),
        "none": torch.zeros(0),
        "counts": torch.tensor([2**40, -1]),
        "mask": torch.tensor([True, False, True]),
        "of weights": torch.nn.Parameter(torch.tensor([float("nan"), float("inf"), -0.0])),
    }
    entry = write_tensors(tmp_path / "a.safetensors", tensors, {"starts": {"x": 3}})
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name].view(-1).view(torch.uint8), tensor.detach().reshape(-1).view(torch.uint8))
    with safe_open(tmp_path / "a.safetensors", framework="pt") as handle:
        assert facts_of(handle) == {"starts": {"x": 3}}
        assert handle.get_slice("overlapping")[2:4].tolist() == [2.0, 3.0]
    content = (tmp_path / "a.safetensors").read_bytes()
    assert entry.name == "a.safetensors"
    assert entry.bytes == len(content)
    assert entry.sha256 == hashlib.sha256(content).hexdigest()


def test_larger_than_one_write(tmp_path):
    tensor = torch.arange(5 << 20, dtype=torch.float32)
    entry = write_tensors(tmp_path / "a.safetensors", {"x": tensor}, None)
    assert torch.equal(load_file(tmp_path / "a.safetensors")["x"], tensor)
    assert entry.sha256 == hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()


def test_no_tensors_are_a_file_too(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {}, {})
    assert load_file(tmp_path / "a.safetensors") == {}


def test_a_full_disk_is_an_error(tmp_path):
    with pytest.raises(OSError):
        write_tensors(tmp_path / "missing" / "a.safetensors", {"x": torch.zeros(1)}, {})
