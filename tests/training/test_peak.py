from __future__ import annotations

import pytest
import torch

from hfray.training.peak import measured_flops, peak_of, published_flops


@pytest.mark.parametrize(
    ("name", "bf16"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835.5e12),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA GH200 480GB", 989.4e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362.05e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA B200", 2250e12),
    ],
)
def test_a_gpu_is_known_by_the_name_of_its_driver(name: str, bf16: float) -> None:
    assert published_flops(name, "bf16") == pytest.approx(bf16)


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA A10G",
        "AMD Instinct MI300X",
        "",
    ],
)
def test_another_chip_is_not_taken_for_one_that_is_known(name: str) -> None:
    assert published_flops(name, "bf16") is None


def test_what_a_chip_cannot_do_has_no_figure() -> None:
    assert published_flops("Tesla T4", "fp16") == 65e12
    assert published_flops("Tesla T4", "bf16") is None
    assert published_flops("Tesla V100-PCIE-16GB", "fp16") == 112e12
    assert published_flops("Tesla V100-SXM2-32GB", "fp16") == 125e12
    assert published_flops("NVIDIA A100-SXM4-80GB", "fp32") is None
    assert published_flops("NVIDIA A100-SXM4-80GB", "tf32") == 156e12


def test_a_cpu_is_measured_and_the_seed_of_the_run_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    peak = peak_of("cpu", "fp32")
    assert peak.source == "measured"
    assert 1e9 < peak.flops < 1e14
    assert torch.equal(torch.get_rng_state(), before)


def test_the_threads_of_the_process_stay_as_they_are() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert measured_flops("cpu", "fp32") > 1e9
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_does_not_pass_its_published_peak() -> None:
    published = published_flops(torch.cuda.get_device_name(), "fp16")
    if published is None:
        pytest.skip("a GPU without a published figure")
    assert 0.3 * published < measured_flops("cuda", "fp16") < 1.05 * published
