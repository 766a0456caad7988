"""R8: training is killed (a worker, the controller, the driver, a raylet) at a random step; it, or the same command,
ends in the same place: the same loss at every step and, on one thread, the same weights bit for bit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import time
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.promises.disk import fill
from tests.promises.rig import Nodes, Rig, Run, environment, within

STEPS, SAVE_STEPS = 60, 10
METHODS: dict[str, Any] = {"full": "full", "lora": {"name": "lora", "r": 4}, "qlora": {"name": "qlora", "r": 4}}
STAGES = range(4)
IN_THE_SUITE = ("full", 1)
WEIGHTS = ("model.safetensors", "adapter_model.safetensors")


@dataclass(frozen=True)
class Ended:
    """What a run has come to."""

    losses: list[float]
    evaluation: float
    weights: str
    resumed_from: list[int]
    failures: int


def ended(output: Path) -> Ended:
    report = json.loads((output / "report.json").read_text())
    training = report["training"]
    (weights,) = (output / name for name in WEIGHTS if (output / name).is_file())
    return Ended(
        [point["loss"] for point in training["points"]],
        report["metrics"]["loss"],
        hashlib.sha256(weights.read_bytes()).hexdigest(),
        training["resumed_from"],
        training["failures"],
    )


def training_job(
    rig: Rig, name: str, method: str, stage: int, *, changes: dict[str, Any] | None = None, **trainer: Any
) -> Path:
    source = rig.folder / "rows.parquet"
    if not source.exists():
        dice = random.Random(0)
        texts = ["".join(dice.choice("abcde ") for _ in range(dice.randint(8, 60))) for _ in range(200)]
        pq.write_table(pa.table({"text": texts, "label": ["b" if "b" in text[:9] else "a" for text in texts]}), source)
    arguments = {
        "max_steps": STEPS, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "logging_steps": 1,
        "save_steps": SAVE_STEPS, "save_strategy": "steps", "eval_strategy": "steps", "eval_steps": STEPS,
    }  # fmt: skip
    spec: dict[str, Any] = {
        "kind": "train", "shard_rows": None, "task": "text-classification", "method": METHODS[method],
        "deepspeed": stage, "global_batch_size": 8, "trainer": arguments | trainer, "workers": {"min": 2},
        "input": {"train": {"path": str(source)}, "validation": {"path": str(source), "limit": 50}},
        "output": {"path": str(rig.folder / name)},
    }  # fmt: skip
    return rig.job(source, seconds_per_item=None, name=name, **spec | (changes or {}))


def processes_of(nodes: Nodes, title: str) -> list[psutil.Process]:
    found = []
    for each in psutil.Process(nodes.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if title in " ".join(each.cmdline()) and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
    return found


def sealed(output: Path) -> int:
    return len(list((output / "_work" / "checkpoints").glob("*/*/manifest.json")))


def last_step(output: Path) -> int:
    names = [path.parent.name for path in (output / "_work" / "checkpoints").glob("*/*/manifest.json")]
    return max((int(name[:8]) for name in names), default=0)


@pytest.mark.parametrize(
    ("method", "stage"),
    [
        pytest.param(*each, marks=pytest.mark.slow if each == IN_THE_SUITE else pytest.mark.chaos)
        for each in product(METHODS, STAGES)
    ],
)
def test_killed_training_ends_in_the_same_place(rig: Rig, method: str, stage: int) -> None:
    dice = random.Random(f"{method} {stage}")
    calm_job = training_job(rig, "calm", method, stage)
    rig.run(calm_job)
    calm = ended(rig.folder / "calm")
    assert len(calm.losses) == STEPS
    assert len(set(calm.losses)) > STEPS // 2
    # Its tokens serve the others.
    tokens = rig.folder / "calm" / "_work" / "tokens"
    for victim in ("RayTrainWorker", "TrainController", "driver"):
        job = training_job(rig, victim.lower(), method, stage)
        output = rig.folder / victim.lower()
        (output / "_work").mkdir(parents=True)
        (output / "_work" / "tokens").symlink_to(tokens)
        target = SAVE_STEPS * dice.randint(1, STEPS // SAVE_STEPS - 2)
        run = rig.start(job)
        rig.wait_for(lambda output=output, target=target: last_step(output) >= target, run)
        time.sleep(dice.uniform(0, 0.5))  # anywhere between two checkpoints
        kill(rig, run, victim, dice)
        if victim == "RayTrainWorker":
            assert run.wait() == 0, run.text()
        else:
            run.wait()
            rig.run(job)
        found = ended(output)
        print(f"{method}, ZeRO-{stage}: {victim} killed after step {target}, went on from {found.resumed_from}")
        assert found.losses == calm.losses
        assert (found.evaluation, found.weights) == (calm.evaluation, calm.weights)
        assert found.resumed_from
        assert found.resumed_from[-1] >= target
        assert found.failures == (victim == "RayTrainWorker")  # those of the last command
        assert not sealed(output)


@pytest.mark.slow
def test_what_is_wrong_with_a_job_is_told_once_and_not_tried_again(rig: Rig) -> None:
    job = training_job(rig, "wrong", *IN_THE_SUITE, learning_rate=1e30, max_grad_norm=0.0, lr_scheduler_type="constant")
    run = rig.run(job, code=5)
    assert re.search(r"^note: deepspeed: ZeRO-1 as asked for, .*: expects \d", run.text(), re.MULTILINE)
    assert re.search(r"^the loss of step \d+ is not a finite number.*learning_rate", run.text(), re.MULTILINE)
    phases = re.findall(r"^\[\S+\] (loading|training|starting workers)", run.text(), re.MULTILINE)
    began = [phase for before, phase in pairwise(["", *phases]) if phase != before]  # said again every few seconds
    assert began.count("loading") == 1, began
    assert not (rig.folder / "wrong" / "_SUCCESS").exists()


@pytest.mark.slow
def test_a_full_disk_keeps_the_checkpoint_before(rig: Rig, disk: Path) -> None:
    """R7, for training."""
    output = disk / "out"
    job = training_job(rig, "full", *IN_THE_SUITE, changes={"output": {"path": str(output)}})
    run = rig.start(job)
    rig.wait_for(lambda: last_step(output) >= 2 * SAVE_STEPS, run)
    ballast = fill(disk)
    full_at = time.monotonic()
    assert run.wait() == 4, run.text()
    took_s = time.monotonic() - full_at
    assert "no space left" in "\n".join(run.text().splitlines()[-20:]), run.text()
    assert took_s < within(60), run.text()
    assert not (output / "_SUCCESS").exists()
    kept = last_step(output)
    assert kept >= 2 * SAVE_STEPS
    ballast.unlink()
    rig.run(job)
    found = ended(output)
    assert len(found.losses) == STEPS
    assert found.resumed_from == [kept]


def kill(rig: Rig, run: Run, victim: str, dice: random.Random) -> None:
    if victim == "driver":
        run.kill()
        return
    found = processes_of(rig.nodes, victim)
    assert found, f"there is no {victim}"
    dice.choice(found).kill()


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(3))
def test_a_removed_raylet_is_replaced(rig: Rig, seed: int) -> None:
    """One worker's node dies; another one joins, and the run goes on there by itself."""
    dice = random.Random(seed)
    calm_job = training_job(rig, "calm", *IN_THE_SUITE)
    rig.run(calm_job)
    calm = ended(rig.folder / "calm")
    with contextlib.closing(Nodes(0, environment(rig.faults))) as nodes:
        made = [nodes.add(), nodes.add(), nodes.add()]  # two workers, and room for tokens
        output = rig.folder / "removed"
        run = rig.start(training_job(rig, "removed", *IN_THE_SUITE), nodes=nodes)
        target = SAVE_STEPS * dice.randint(1, STEPS // SAVE_STEPS - 2)
        rig.wait_for(lambda: last_step(output) >= target, run)
        for node in made[:2]:
            nodes.remove(node)
        nodes.add()
        assert run.wait() == 0, run.text()
    found = ended(output)
    print(f"seed {seed}: two of three nodes removed after step {target}, went on from {found.resumed_from}")
    assert found.losses == calm.losses
    assert found.weights == calm.weights


@pytest.mark.chaos
def test_losses_beyond_the_limit_end_the_run_and_the_same_command_goes_on(rig: Rig) -> None:
    job = training_job(rig, "limit", *IN_THE_SUITE, changes={"max_failures": 0})
    output = rig.folder / "limit"
    run = rig.start(job)
    rig.wait_for(lambda: last_step(output) >= SAVE_STEPS, run)
    kill(rig, run, "RayTrainWorker", random.Random(0))
    assert run.wait() == 5, run.text()
    kept = last_step(output)
    rig.run(job)
    assert ended(output).resumed_from == [kept]
