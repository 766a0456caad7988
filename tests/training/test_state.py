"""Real groups of processes over gloo, DeepSpeed's real optimizers. The runs are made once, for all tests."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from hfray.data.storage import Storage
from hfray.errors import DataError, EngineError
from hfray.training.checkpoints import listed
from hfray.training.manifest import MANIFEST, is_sealed, seal, unseal, verify
from hfray.training.state import load_state, save_state
from hfray.training.tensor_files import facts_of
from tests.training import state_jobs, trainer_job
from tests.training.process_groups import end_group, run_group
from tests.training.state_jobs import KEY, SAVED_STEP, STEPS

pytestmark = pytest.mark.slow


def case(name: str, stage: int, precision: str, method: str = "full", **more: object) -> dict[str, object]:
    return {"name": name, "stage": stage, "precision": precision, "method": method, **more}


CASES = [
    case("0-fp32", 0, "fp32"),
    case("0-bf16", 0, "bf16"),
    case("1-fp32", 1, "fp32"),
    case("1-bf16-lora", 1, "bf16", "lora"),
    case("2-bf16", 2, "bf16"),
    case("2-bf16-qlora", 2, "bf16", "qlora"),
    case("3-fp32", 3, "fp32", zero={"sub_group_size": 700}),
    case("3-bf16-lora", 3, "bf16", "lora", zero={"stage3_param_persistence_threshold": 40}),
    case("1-fp32-sums", 1, "bf16", config={"data_types": {"grad_accum_dtype": "fp32"}}),
]
NAMES = [str(each["name"]) for each in CASES]
DROPOUT = case("2-dropout", 2, "fp32", dropout=0.3)
OTHER_OPTIMIZERS = [case("3-sgd", 3, "bf16", optimizer="sgd"), case("1-rmsprop", 1, "fp32", optimizer="rmsprop")]
OTHER_STAGE = [
    case("3-after-0", 3, "fp32", **{"from": "0-fp32"}),
    case("0-after-3", 0, "fp32", **{"from": "3-fp32"}),
    case("1-after-2", 1, "bf16", **{"from": "2-bf16"}),
    case("2-lora-after-3", 2, "bf16", "lora", **{"from": "3-bf16-lora"}),
]
FROM_ONE = [each for each in CASES if each["name"] in ("1-fp32", "3-bf16-lora")]
GROUPS = [("two_to_two", name) for name in NAMES] + [
    (group, str(each["name"]))
    for group, cases in (("two_to_one", CASES), ("two_to_three", CASES), ("one_to_two", FROM_ONE))
    for each in cases
]
"""Which group continued which case."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What each rank of each group found, by the group's name; `folder` has the checkpoints."""
    folder = tmp_path_factory.mktemp("checkpoints")
    found = {"folder": folder}

    def plan(cases, *, begin=None, save=None, end=None):
        places = {"begin": begin, "save": save, "end": end}
        return {"cases": cases} | {key: value and str(folder / value) for key, value in places.items()}

    def run(world_size, **plans):
        results = run_group(
            state_jobs.run_plans, world_size, list(plans.values()), folder / "-".join(["group", *plans])
        )
        for number, name in enumerate(plans):
            found[name] = [of_rank[number] for of_rank in results]

    run(2, two=plan([*CASES, DROPOUT, *OTHER_OPTIMIZERS], save="two", end="two-end"))
    run(1, one=plan(FROM_ONE, save="one", end="one-end"), two_to_one=plan(CASES, begin="two", end="two-to-one"))
    run(
        2,
        two_to_two=plan([*CASES, DROPOUT, *OTHER_OPTIMIZERS], begin="two", end="two-to-two"),
        one_to_two=plan(FROM_ONE, begin="one", end="one-to-two"),
        other_stage=plan(OTHER_STAGE, begin="two"),
    )
    run(3, two_to_three=plan(CASES, begin="two", end="two-to-three"))
    return found


def tolerance(name: str) -> float:
    """Sums in another order, at 24 bits and at 8."""
    return 1e-6 if "fp32" in name and "sums" not in name else 2e-4


@pytest.mark.parametrize("name", [*NAMES, "2-dropout", "3-sgd", "1-rmsprop"])
def test_the_same_world_size_goes_on_bit_for_bit(runs, name):
    for before, after in zip(runs["two"], runs["two_to_two"], strict=True):
        assert after[name]["losses"] == before[name]["losses"][SAVED_STEP:]
        assert after[name]["final"] == before[name]["final"]
    assert assembled(runs["folder"] / "two-to-two" / name) == assembled(runs["folder"] / "two-end" / name)


def test_dropout_was_there(runs):
    alike, other = assembled(runs["folder"] / "two-end" / "2-dropout"), assembled(runs["folder"] / "two-end" / "1-fp32")
    assert alike["master/lm_head.weight"] != other["master/lm_head.weight"]


@pytest.mark.parametrize(("group", "name"), GROUPS)
def test_every_tensor_is_what_it_was_also_frozen_ones(runs, group, name):
    saved = runs["one" if group.startswith("one") else "two"][0][name]["saved"]
    assert len(saved) > 10
    for rank in runs[group]:
        assert rank[name]["loaded"] == saved


@pytest.mark.parametrize(
    ("begun", "group", "name"),
    [("one" if group.startswith("one") else "two", group, name) for group, name in GROUPS if group != "two_to_two"],
)
def test_another_world_size_goes_on_with_the_same_run(runs, begun, group, name):
    before, after = runs[begun][0][name], runs[group][0][name]
    assert after["losses"] == pytest.approx(before["losses"][SAVED_STEP:], abs=tolerance(name))
    assert len(after["losses"]) == STEPS - SAVED_STEP
    expected, found = (whole(runs["folder"] / each / name) for each in (f"{begun}-end", group.replace("_", "-")))
    assert found.keys() == expected.keys()
    if tolerance(name) < 1e-5:
        for key, tensor in expected.items():
            # Adam divides gradients by their size, so a tiny one's rounding may move a weight by a share of lr.
            torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("group", "name"), GROUPS)
def test_each_group_keeps_its_hyperparameters(runs, group, name):
    groups = runs[group][0][name]["groups"]
    assert groups == runs["two"][0][name]["groups"]
    values = {each["values"]["initial_lr"]: each["values"] for each in groups}
    assert values[1e-2]["weight_decay"] == 0.01
    assert values[1e-2]["lr"] == pytest.approx(1e-2 / (1 + SAVED_STEP))
    assert values[1e-2]["betas"] == [0.9, 0.95]
    if "lora" not in name:  # which has matrices only
        assert values[3e-3]["weight_decay"] == 0.0
        assert values[3e-3]["lr"] == pytest.approx(3e-3 / (1 + SAVED_STEP))
        assert all(each.endswith("norm.weight") for each in groups[1]["parameters"])


@pytest.mark.parametrize("name", [str(each["name"]) for each in OTHER_STAGE])
def test_another_stage_goes_on_with_the_same_run(runs, name):
    source = next(str(each["from"]) for each in OTHER_STAGE if each["name"] == name)
    before, after = runs["two"][0][source], runs["other_stage"][0][name]
    assert after["loaded"] == before["saved"]
    assert after["losses"] == pytest.approx(before["losses"][SAVED_STEP:], abs=tolerance(name))


def test_each_optimizer_of_deepspeed_was_there(runs):
    assert {each["kind"] for each in runs["two"][0].values()} == {
        "AdamW", "FP16_UnfusedOptimizer", "DeepSpeedZeroOptimizer", "BF16_Optimizer", "DeepSpeedZeroOptimizer_Stage3",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["1-fp32", "3-fp32"])
def test_nobody_writes_what_another_has(runs, name):
    """Weights, two moments, and the generators; each rank its share."""
    folder = runs["folder"] / "two" / name
    trained = sum(tensor.numel() * 4 for key, tensor in whole(folder).items() if key.startswith("master/"))
    sizes = [path.stat().st_size for path in sorted(folder.glob("rank-*"))]
    assert len(sizes) == 2
    for size in sizes:
        assert 3 * trained / 2 <= size < 3 * trained / 2 + 40_000


def test_nothing_in_it_is_a_pickle_and_frozen_weights_are_not_in_it(runs):
    folder = runs["folder"] / "two" / "3-bf16-lora"
    names = {path.name for path in folder.iterdir()}
    assert names == {MANIFEST, "state.json", "rank-00000.safetensors", "rank-00001.safetensors"}
    assert all("lora_" in key for key in whole(folder))


@pytest.mark.parametrize("stage", [2, 3])
def test_the_trainer_of_transformers_goes_on_bit_for_bit(tmp_path, stage):
    """With dropout, a schedule, and the optimizer, groups and engine that it makes itself."""
    plan = {"stage": stage, "folder": str(tmp_path / "step"), "resume": False}
    undisturbed = run_group(trainer_job.train, 2, plan, tmp_path / "first")
    resumed = run_group(trainer_job.train, 2, plan | {"resume": True}, tmp_path / "second")
    for before, after in zip(undisturbed, resumed, strict=True):
        assert after["optimizer"] == "AdamW"
        assert len(after["steps"]) == trainer_job.STEPS - trainer_job.SAVED_STEP
        assert after["steps"] == {step: before["steps"][step] for step in after["steps"]}
    assert assembled(tmp_path / "end-True") == assembled(tmp_path / "end-False")


def test_refusals_reach_every_rank(runs, tmp_path):
    good = runs["folder"] / "two" / "2-bf16"
    damages = {
        "flipped": "rank-00001.safetensors has been changed",
        "added": "zero_pp_rank_0_optim_states.pt has been added",
        "removed": "rank-00000.safetensors is missing",
        "unsealed": "its writing was cut off",
        "foreign": "not signed with this key",
    }
    for name in damages:
        shutil.copytree(good, tmp_path / name)
    content = bytearray((good / "rank-00001.safetensors").read_bytes())
    content[-100] ^= 4
    (tmp_path / "flipped" / "rank-00001.safetensors").write_bytes(content)
    (tmp_path / "added" / "zero_pp_rank_0_optim_states.pt").write_bytes(b"\x80\x04.")
    (tmp_path / "removed" / "rank-00000.safetensors").unlink()
    unseal(tmp_path / "unsealed")
    signed = json.loads((tmp_path / "foreign" / MANIFEST).read_text())
    (tmp_path / "foreign" / MANIFEST).write_text(json.dumps(signed | {"hmac": "0" * 64}))
    # One that is ours, of which a part was never written.
    shutil.copytree(good, tmp_path / "partial")
    (tmp_path / "partial" / "rank-00001.safetensors").unlink()
    seal(tmp_path / "partial", KEY)
    others = {
        tmp_path / "partial": "lacks a part of",
        runs["folder"]
        / "two"
        / "2-bf16-qlora": "SpecError: model, method: the checkpoint is of another model or method",
    }
    folders = [*(str(tmp_path / name) for name in damages), *map(str, others)]
    plan = {"case": CASES[4], "folders": folders, "begin": str(good)}
    expected = [*damages.values(), *others.values()]
    for said in run_group(state_jobs.try_to_load, 2, plan, tmp_path / "group"):
        for sentence, message in zip(expected, said, strict=True):
            assert sentence in message


@pytest.mark.parametrize(("rank", "count"), [(0, 20), (0, 40_000), (1, 0), (1, 9_000)])
def test_a_worker_killed_while_saving_leaves_no_checkpoint(tmp_path, rank, count):
    folder = tmp_path / "step"
    plan = {"case": CASES[2], "folder": str(folder), "rank": rank, "bytes": count}
    codes = end_group(state_jobs.die_while_saving, 2, plan, tmp_path / "group")
    assert codes[rank] == -9
    assert codes[1 - rank] == 1
    assert not is_sealed(folder)
    with pytest.raises(DataError, match="was cut off"):
        verify(folder, KEY)


@pytest.mark.chaos
def test_the_latest_checkpoint_can_be_loaded_after_fifty_kills_while_saving(tmp_path):
    dice = random.Random(9)
    storage, case = Storage(str(tmp_path)), CASES[7]
    sizes: list[int] = []
    sealed = 0
    for number in range(51):
        folder = tmp_path / "run" / f"{number:08d}-{number:08x}"
        # The first one is whole; of the others a few are killed when all is written, and may be whole too.
        rank = dice.randrange(2) if number else None
        count = dice.randint(0, int(1.02 * sizes[rank])) if rank is not None else 0
        plan = {"case": case, "folder": str(folder), "rank": rank, "bytes": count}
        end_group(state_jobs.die_while_saving, 2, plan, tmp_path / f"group-{number}")
        if not number:
            sizes = [(folder / f"rank-{each:05d}.safetensors").stat().st_size for each in range(2)]
        sealed += is_sealed(folder)
        latest = tmp_path / "run" / listed(storage, "run")[-1].name
        verify(latest, KEY)
        if number % 10 == 0:
            plan = {"case": case, "folders": [str(latest)], "begin": str(latest)}
            loaded = run_group(state_jobs.try_to_load, 2, plan, tmp_path / f"load-{number}")
            assert loaded == [["loaded"], ["loaded"]]
    print(f"51 saves, 50 of them killed: {sealed} checkpoints are sealed, and the latest could always be loaded")
    assert 1 <= sealed < 40


def whole(folder: Path) -> dict[str, torch.Tensor]:
    """Every parameter's weights and states, put together from their pieces."""
    shapes = json.loads((folder / "state.json").read_text())["shapes"]
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("rank-*")):
        with safe_open(path, framework="pt") as handle:
            starts = facts_of(handle)["starts"]
            for key in handle.keys():  # noqa: SIM118 (no mapping)
                name = key.partition("/")[2]
                if key.startswith(("rng/", "buffer/")):
                    continue
                piece = handle.get_tensor(key)
                target = found.setdefault(key, torch.full(shapes[name], float("nan"), dtype=piece.dtype))
                target.view(-1)[starts[name] : starts[name] + len(piece)] = piece
    assert not any(tensor.isnan().any() for tensor in found.values())
    return found


def assembled(folder: Path) -> dict[str, bytes]:
    return {key: tensor.numpy().tobytes() for key, tensor in whole(folder).items()}


class Plain:
    """Without DeepSpeed and without peers."""

    def __init__(self, **groups: float) -> None:
        torch.manual_seed(1)
        self.model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 3))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, **groups)

    def train(self, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            loss = self.model(torch.randn(4, 5)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return losses

    def save(self, folder: Path) -> None:
        save_state(folder, self.model, optimizer=self.optimizer, rank=0, world_size=1, key=KEY, extra={"a": [1, None]})

    def load(self, folder: Path, **named: bool) -> dict[str, object]:
        return load_state(folder, self.model, optimizer=self.optimizer, rank=0, world_size=1, key=KEY, **named)


def test_a_module_and_its_optimizer_can_be_saved_alone(tmp_path):
    run, other = Plain(), Plain(weight_decay=0.5)
    run.train(3)
    run.save(tmp_path / "step")
    expected = run.train(3)
    other.train(5)
    assert other.load(tmp_path / "step") == {"a": [1, None]}
    assert other.optimizer.param_groups[0]["weight_decay"] == 0
    assert other.train(3) == expected
    assert all(torch.equal(*each) for each in zip(run.model.buffers(), other.model.buffers(), strict=True))


def test_weights_alone_leave_the_rest(tmp_path):
    run, other = Plain(), Plain(weight_decay=0.5)
    run.train(3)
    run.save(tmp_path / "step")
    weights = [each.detach().clone() for each in run.model.parameters()]
    other.train(2)
    momentum = other.optimizer.state[other.model[0].weight]["momentum_buffer"].clone()
    drawn = torch.get_rng_state()
    other.load(tmp_path / "step", weights_only=True)
    assert all(torch.equal(*each) for each in zip(weights, other.model.parameters(), strict=True))
    assert torch.equal(other.optimizer.state[other.model[0].weight]["momentum_buffer"], momentum)
    assert other.optimizer.param_groups[0]["weight_decay"] == 0.5
    assert torch.equal(torch.get_rng_state(), drawn)


def test_saving_again_leaves_nothing_of_what_was_there(tmp_path):
    run = Plain()
    run.train(1)
    folder = tmp_path / "step"
    run.save(folder)
    (folder / "rank-00007.safetensors").write_bytes(b"of a larger world")
    run.save(folder)
    verify(folder, KEY)
    assert not (folder / "rank-00007.safetensors").exists()


def test_weights_that_are_no_numbers_are_not_saved_and_the_one_before_stays(tmp_path):
    run = Plain()
    run.train(1)
    run.save(tmp_path / "step-1")
    with torch.no_grad():
        run.model[2].weight[1, 3] = float("inf")
    with pytest.raises(EngineError, match=r"the weights 2\.weight are not finite numbers any more.*learning_rate"):
        run.save(tmp_path / "step-2")
    assert not is_sealed(tmp_path / "step-2")
    verify(tmp_path / "step-1", KEY)
