"""Checkpoints in an output folder: the latest sealed one is gone on from, old ones go, unsealed ones never count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hfray.data.ledger import CHECKPOINTS
from hfray.data.storage import Storage
from hfray.errors import DataError
from hfray.training.checkpoints import Checkpoints, latest_step, listed, sweep
from hfray.training.counting import Counts
from hfray.training.manifest import MANIFEST
from hfray.training.position import Position
from hfray.training.secret import SecretKey

FINGERPRINT = "f" * 64
PLACE = f"{CHECKPOINTS}/{FINGERPRINT[:16]}"
Make = Callable[[], Checkpoints]


def engine(seed: int) -> Any:
    """A model with its optimizer, after a step."""
    torch.manual_seed(seed)
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return SimpleNamespace(module=module, optimizer=optimizer, named_parameters=module.named_parameters)


@pytest.fixture(params=["disk", "s3"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    url = str(tmp_path / "out") if request.param == "disk" else f"{request.getfixturevalue('s3')}/out"
    count = iter(range(100))

    def made(key: bytes = b"k" * 32) -> Checkpoints:
        scratch = tmp_path / f"scratch-{next(count)}"
        scratch.mkdir()
        return Checkpoints(Storage(url), FINGERPRINT, SecretKey(key), scratch, rank=0, world_size=1, seed=0)

    made.storage = Storage(url)  # type: ignore[attr-defined]
    return made


def save(checkpoints: Checkpoints, step: int, *, best: int | None = None, keep: int = 2, seed: int = 0) -> Any:
    made = engine(seed or step)
    position = Position(step=step, best_step=best, counts=Counts(10 * step, 10 * step))
    checkpoints.save(made, position, 8 * step, keep=keep)
    return made


def test_the_latest_is_gone_on_from(make: Make) -> None:
    assert make().position() == Position()
    first = make()
    save(first, 10)
    kept = save(first, 20)
    again = make()
    position = again.position()
    assert (position.step, position.counts.tokens) == (20, 200)
    target = engine(99)
    again.restore(target)
    assert torch.equal(target.module.weight, kept.module.weight)
    for mine, theirs in zip(target.module.parameters(), kept.module.parameters(), strict=True):
        assert torch.equal(target.optimizer.state[mine]["exp_avg"], kept.optimizer.state[theirs]["exp_avg"])


def test_old_ones_go_but_for_the_best(make: Make) -> None:
    checkpoints = make()
    made = {step: save(checkpoints, step, best=20 if step >= 20 else None) for step in (10, 20, 30, 40, 50)}
    assert [each.step for each in listed(make.storage, PLACE)] == [20, 40, 50]  # type: ignore[attr-defined]
    assert latest_step(make.storage, FINGERPRINT) == 50  # type: ignore[attr-defined]
    target = engine(99)
    moments = [state["exp_avg"].clone() for state in target.optimizer.state.values()]
    make().restore_best(target, 20)
    assert torch.equal(target.module.weight, made[20].module.weight)
    for before, state in zip(moments, target.optimizer.state.values(), strict=True):
        assert torch.equal(before, state["exp_avg"])  # weights only
    with pytest.raises(DataError, match="the best checkpoint, of step 30, is gone"):
        make().restore_best(target, 30)


def test_an_unsealed_one_never_counts_and_is_swept(make: Make) -> None:
    save(make(), 10)
    storage: Storage = make.storage  # type: ignore[attr-defined]
    (sealed,) = listed(storage, PLACE)
    storage.make_dirs(f"{PLACE}/00000020-0000abcd")
    storage.replace(f"{PLACE}/00000020-0000abcd/state.json", b"{")
    storage.make_dirs(f"{CHECKPOINTS}/{'0' * 16}/00000030-0000abcd")
    storage.replace(f"{CHECKPOINTS}/{'0' * 16}/00000030-0000abcd/{MANIFEST}", b"{}")
    assert make().position().step == 10
    sweep(storage, FINGERPRINT)
    assert listed(storage, PLACE) == [sealed]
    assert storage.names(CHECKPOINTS) == (FINGERPRINT[:16],)
    assert storage.names(PLACE) == (sealed.name,)


def test_one_that_was_changed_or_is_of_another_key_is_refused(make: Make) -> None:
    save(make(), 10)
    with pytest.raises(DataError, match="checkpoint"):
        make(b"x" * 32).position()  # type: ignore[call-arg]
    storage: Storage = make.storage  # type: ignore[attr-defined]
    (sealed,) = listed(storage, PLACE)
    name = f"{PLACE}/{sealed.name}/rank-00000.safetensors"
    content = bytearray(storage.read_bytes(name))
    content[-1] ^= 1
    storage.replace(name, bytes(content))
    again = make()
    assert again.position().step == 10  # of which no byte of the changed file was read
    target = engine(99)
    before = target.module.weight.clone()
    with pytest.raises(DataError, match=r"rank-00000\.safetensors has been changed"):
        again.restore(target)
    assert torch.equal(target.module.weight, before)
    name = f"{PLACE}/{sealed.name}/state.json"
    storage.replace(name, storage.read_bytes(name).replace(b"10", b"11"))
    with pytest.raises(DataError, match=r"state\.json has been changed"):
        make().position()


def test_a_damaged_one_is_no_dead_end(make: Make) -> None:
    for step in (10, 20):
        save(make(), step)
    storage: Storage = make.storage  # type: ignore[attr-defined]
    for before, named in ((20, "from step 10"), (10, "from the beginning")):
        folder = f"{PLACE}/{listed(storage, PLACE)[-1].name}"
        assert make().position().step == before
        storage.replace(f"{folder}/rank-00000.safetensors", b"?")
        with pytest.raises(DataError) as caught:
            make().position()
        assert f"delete {storage.url(folder)}: the same command then goes on {named})" in str(caught.value)
        storage.delete_prefix(folder)
    assert make().position() == Position()


def test_two_groups_of_workers_never_share_a_folder(make: Make) -> None:
    one, two = make(), make()
    save(one, 10, seed=1)
    kept = save(two, 10, seed=2)
    assert len(listed(make.storage, PLACE)) == 2  # type: ignore[attr-defined]
    again = make()
    assert again.position().step == 10
    again.restore(target := engine(99))
    others = [kept.module.weight, engine(1).module.weight]
    assert any(torch.equal(target.module.weight, each) for each in others)
