"""A run's checkpoints in the output folder: which there are, which one is the latest and the best, which may go. Knows
folders and storage; what is in a checkpoint is `training.state`'s.

    _work/checkpoints/<fingerprint>/00000120-<attempt>/     sealed last of all, so whole or of no account

Two runs that write at once (one of them given up, and not yet dead) have other attempts, so neither can spoil what the
other sealed.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfray.data.ledger import CHECKPOINTS
from hfray.data.storage import Storage
from hfray.errors import DataError
from hfray.training.collective import gather_json, together
from hfray.training.manifest import MANIFEST, read_verified
from hfray.training.position import Position
from hfray.training.secret import SecretKey
from hfray.training.state import STATE_FILE, load_state, save_state

_NAME = re.compile(r"(\d{8})-([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A sealed one. name: of its folder."""

    step: int
    name: str


def listed(storage: Storage, folder: str) -> list[Checkpoint]:
    """The sealed checkpoints of a folder, oldest first."""
    found = []
    for name in storage.names(folder):
        matched = _NAME.fullmatch(name)
        if matched and storage.exists(f"{folder}/{name}/{MANIFEST}"):
            found.append(Checkpoint(int(matched[1]), name))
    return sorted(found, key=lambda each: (each.step, each.name))


class Checkpoints:
    """Those of one run, as one rank sees them. All methods are called by all ranks together."""

    def __init__(
        self,
        storage: Storage,
        fingerprint: str,
        key: SecretKey,
        scratch: Path,
        *,
        rank: int,
        world_size: int,
        seed: int,
    ) -> None:
        """storage: the job's output; scratch: a folder of this rank's own for what lies on an object store."""
        self._storage = storage
        self._folder = f"{CHECKPOINTS}/{fingerprint[:16]}"
        self._key = key
        self._scratch = scratch
        self._rank, self._world_size, self._seed = rank, world_size, seed
        self._attempt = str(gather_json(uuid.uuid4().hex[:8])[0])
        """Eight letters that no other group of workers has."""
        self._latest: Checkpoint | None = None

    def position(self) -> Position:
        """Of the latest checkpoint; the start of the run if there is none. Raises DataError if it is not whole."""
        found: Checkpoint | None = None
        with together(f"checkpoints in {self._storage.url(self._folder)}"):
            if self._rank == 0:
                found = next(reversed(listed(self._storage, self._folder)), None)
        first = gather_json(None if found is None else [found.step, found.name])[0]
        if first is None:
            return Position()
        self._latest = Checkpoint(*first)
        with self._told(self._latest):
            folder = self._here(self._latest)
            with together(f"checkpoint {folder}"):
                state = json.loads(read_verified(folder, self._key, STATE_FILE))
                position = Position.from_record(state["extra"])
        return position

    def restore(self, engine: Any) -> None:
        """Weights, optimizer and generators as the checkpoint of `position` has them."""
        if self._latest is not None:
            with self._told(self._latest):
                self._load(self._latest, engine, weights_only=False)

    def restore_best(self, engine: Any, step: int) -> None:
        """The weights of the checkpoint of a step. Raises DataError if it is gone."""
        found = [each for each in listed(self._storage, self._folder) if each.step == step]
        name = gather_json(found[-1].name if found else None)[0]
        if name is None:
            raise DataError(f"{self._storage.url(self._folder)}: the best checkpoint, of step {step}, is gone")
        self._load(Checkpoint(step, name), engine, weights_only=True)

    def save(self, engine: Any, position: Position, samples: int, *, keep: int) -> None:
        """Makes a checkpoint, and deletes older ones but `keep` and the best."""
        new = Checkpoint(position.step, f"{position.step:08d}-{self._attempt}")
        folder = self._path(new)
        save_state(
            folder,
            engine,
            rank=self._rank,
            world_size=self._world_size,
            key=self._key,
            extra=position.as_record(),
            position=samples,
        )
        if not self._storage.is_local:
            self._upload(new, folder)
        with together(f"checkpoints in {self._storage.url(self._folder)}"):
            if self._rank == 0:
                self._prune(keep, position.best_step)

    def _upload(self, checkpoint: Checkpoint, folder: Path) -> None:
        """The manifest last, when all ranks have put their files there."""
        target = f"{self._folder}/{checkpoint.name}"
        with together(f"checkpoint {self._storage.url(target)}"):
            for file in sorted(folder.iterdir()):
                if file.name != MANIFEST:
                    self._storage.replace(f"{target}/{file.name}", file)
        with together(f"checkpoint {self._storage.url(target)}"):
            if self._rank == 0:
                self._storage.replace(f"{target}/{MANIFEST}", folder / MANIFEST)
        shutil.rmtree(folder, ignore_errors=True)

    def _prune(self, keep: int, best_step: int | None) -> None:
        sealed = listed(self._storage, self._folder)
        kept = {each.name for each in sealed[-keep:]} | {each.name for each in sealed if each.step == best_step}
        for each in sealed:
            if each.name not in kept:
                # Without its manifest it is none, however far the rest of the deletion comes.
                self._storage.delete(f"{self._folder}/{each.name}/{MANIFEST}")
                self._storage.delete_prefix(f"{self._folder}/{each.name}")

    def _load(self, checkpoint: Checkpoint, engine: Any, *, weights_only: bool) -> None:
        load_state(
            self._here(checkpoint),
            engine,
            rank=self._rank,
            world_size=self._world_size,
            key=self._key,
            seed=self._seed,
            weights_only=weights_only,
            shared=self._storage.is_local,
        )

    @contextmanager
    def _told(self, checkpoint: Checkpoint) -> Iterator[None]:
        """Whatever is wrong with the latest one, there is a way on without it."""
        try:
            yield
        except DataError as error:
            others = [each.step for each in listed(self._storage, self._folder) if each != checkpoint]
            rest = f"from step {others[-1]:,}" if others else "from the beginning"
            place = self._storage.url(f"{self._folder}/{checkpoint.name}")
            raise DataError(f"{error} (if it is damaged, delete {place}: the same command then goes on {rest})") from (
                error
            )

    def _path(self, checkpoint: Checkpoint) -> Path:
        name = f"{self._folder}/{checkpoint.name}"
        return self._storage.local_path(name) if self._storage.is_local else self._scratch / checkpoint.name

    def _here(self, checkpoint: Checkpoint) -> Path:
        """The checkpoint's folder on this machine; fetched if it lies on an object store."""
        folder = self._path(checkpoint)
        if self._storage.is_local or (folder / MANIFEST).exists():
            return folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        prefix = f"{self._folder}/{checkpoint.name}"
        with together(f"checkpoint {self._storage.url(prefix)}"):
            for info in self._storage.list(prefix):
                name = info.path.rpartition("/")[2]
                with self._storage.open(info.path) as source, (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 22)
        return folder


def latest_step(storage: Storage, fingerprint: str) -> int:
    """Of the newest checkpoint; 0 if there is none."""
    return max((each.step for each in listed(storage, f"{CHECKPOINTS}/{fingerprint[:16]}")), default=0)


def sweep(storage: Storage, fingerprint: str) -> None:
    """Deletes what runs that were killed left unsealed, and the checkpoints of other jobs. For the driver, before any
    worker starts."""
    own = fingerprint[:16]
    for name in storage.names(CHECKPOINTS):
        if name != own:
            storage.delete_prefix(f"{CHECKPOINTS}/{name}")
    folder = f"{CHECKPOINTS}/{own}"
    sealed = {each.name for each in listed(storage, folder)}
    for name in storage.names(folder):
        if name not in sealed:
            storage.delete_prefix(f"{folder}/{name}")
