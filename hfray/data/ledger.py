"""The output folder of a job: parts, receipts, manifest. What is committed, and how it is found again.

    spec.yaml  data/part-00000000.parquet ...  errors.parquet  report.json  report.html  _SUCCESS
    _work/     identity.json, lease.json, index/, attempts/, receipts/, retry/: private, safe to delete once done

A job of two phases has one ledger for each, over the same folder: the first one's parts lie below `_work`.

The presence of a part is the resume mark; `_SUCCESS` is written last and tells the truth about every part. Receipts
are a cache: a part without one is read again and its receipt made from its bytes. Knows files; not Ray, not models.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hfray.data.layout import Layout, PartFormat, is_ours
from hfray.data.storage import Storage
from hfray.errors import DataError

SUCCESS = "_SUCCESS"
IDENTITY = "_work/identity.json"
RETRY_JOURNAL = "_work/retry.json"
DRAFTS = "_work/drafts"
"""Of a job with two phases: all that the first one leaves for the second."""
ERRORS = "_work/errors"
"""Failed rows of a kind of job whose parts do not hold them, a file for each shard that has some."""
CHECKPOINTS = "_work/checkpoints"
"""Of training."""
WRITTEN_FILES = (
    SUCCESS, "errors.parquet", "report.json", "report.html", "spec.yaml", "tokens.json", "training_curve.svg",
    "output.jsonl", "error.jsonl",
)  # fmt: skip
WORK_FOLDERS = ("_work/receipts", DRAFTS, ERRORS, CHECKPOINTS, "runs")
"""That a job starting over empties; `runs` is what training tells TensorBoard."""


@dataclass(frozen=True, slots=True)
class PartEntry:
    """What the manifest says of one part."""

    shard: int
    rows: int
    failed: int
    size_bytes: int
    sha256: str


class Ledger:
    """Reads and writes one output folder. Picklable: workers hold the same object as the driver."""

    def __init__(
        self,
        url: str,
        format: PartFormat,
        fingerprint: str,
        *,
        layout: Layout | None = None,
        receipts: str = "_work/receipts",
    ) -> None:
        """layout: where the parts lie, by default in `data`; receipts: the folder of this phase's receipts."""
        self.url = url
        self.fingerprint = fingerprint
        self.layout = layout or Layout("data", format)
        self.storage = Storage(url)
        self._receipts = receipts

    @property
    def format(self) -> PartFormat:
        return self.layout.format

    @property
    def attempts(self) -> str:
        """Where attempt files are written. One folder per fingerprint, made by the driver alone: after `--restart`
        with another job, a worker of the old one that wakes up finds its folder gone and cannot commit."""
        return f"_work/attempts/{self.fingerprint[:16] or 'open'}"

    # -- the folder

    def open_work(self) -> None:
        """Makes the private folders, enough to hold a lease and an index."""
        for folder in (self.attempts, self._receipts, "_work/index"):
            self.storage.make_dirs(folder)

    def open(self, identity: Mapping[str, Any]) -> None:
        """Claims the output for this identity; the one there stays if it is the same."""
        self.open_work()
        for folder in self.layout.folders:
            self.storage.make_dirs(folder)
        data = json.dumps(identity, sort_keys=True, indent=1).encode()
        self.storage.create_exclusive(IDENTITY, data, self.attempts)

    def identity(self) -> dict[str, Any] | None:
        """What the output was begun with, or None for a new folder."""
        data = self._read(IDENTITY)
        return None if data is None else json.loads(data)

    def clear(self) -> None:
        """Deletes what hfray wrote, `_SUCCESS` first; a foreign file stays."""
        for name in WRITTEN_FILES:
            self.delete(name)
        # Identity and attempts go before the parts: a worker of the old run that wakes up now cannot commit any more.
        for name in self.storage.names("_work/attempts"):
            if name != "open":  # the lease of the run that clears lives there
                self.storage.delete_prefix(f"_work/attempts/{name}")
        self.delete(IDENTITY)
        for name in [name for name in self._data_files() if is_ours(name)]:
            self.delete(f"data/{name}")
        for folder in WORK_FOLDERS:
            self.storage.delete_prefix(folder)
        self.delete(RETRY_JOURNAL)
        self.discard_retry()

    def foreign_files(self) -> list[str]:
        """Files in `data/` that are no parts; the folder must hold parts and nothing else."""
        return [name for name in self._data_files() if not is_ours(name) and not _is_temporary(name)]

    def sweep_temporary(self) -> None:
        """Deletes half-written files that killed drivers left. For the holder of the lease, as the first thing: without
        a lease, what another run is writing would be among them."""
        for folder in ("", "_work", "_work/index", self._receipts):
            for name in self.storage.names(folder):
                if _is_temporary(name):
                    self.storage.delete(f"{folder}/{name}".lstrip("/"))
        for name in [name for name in self._data_files() if _is_temporary(name)]:  # in whatever splits there are
            self.storage.delete(f"data/{name}")

    # -- parts

    def commit_part(self, shard: int, data: bytes) -> bool:
        """Creates the part exclusively; False when another attempt was first. Raises DataError when the output was
        started over for another job meanwhile."""
        if not self.storage.is_local and (self.identity() or {}).get("fingerprint") != self.fingerprint:
            raise DataError(f"{self.url} was started over by another run; this one stops")  # no folder to be gone there
        return self.storage.create_exclusive(self.layout.path(shard), data, self.attempts)

    def has_part(self, shard: int) -> bool:
        return self.storage.exists(self.layout.path(shard))

    def read_part(self, shard: int) -> bytes:
        return self.storage.read_bytes(self.layout.path(shard))

    def part_sizes(self) -> dict[int, int]:
        """Shard number to size in bytes, of every part there is; one listing."""
        sizes: dict[int, int] = {}
        for info in self.storage.list(self.layout.folder):
            shard = self.layout.part(info.path[len(self.layout.folder) + 1 :])
            if shard is not None:
                sizes[shard] = info.size_bytes
        return sizes

    def _data_files(self) -> Iterator[str]:
        """The files in `data`, those of splits as `train/...`."""
        return (info.path.removeprefix("data/") for info in self.storage.list("data"))

    # -- receipts, a cache of what was committed

    def save_receipts(self, lines: Sequence[str]) -> None:
        """One small file per call."""
        if lines:
            name = f"{self._receipts}/{uuid.uuid4().hex}.jsonl"
            self.storage.replace(name, "".join(line + "\n" for line in lines).encode())

    def load_receipts(self) -> Iterable[str]:
        """Lines in no order; a shard may appear twice (adopted once more), for the same part."""
        for info in self.storage.list(self._receipts):
            if info.path.endswith(".jsonl"):
                yield from self.storage.read_bytes(info.path).decode().splitlines()

    # -- the end

    def success(self) -> dict[str, Any] | None:
        """The manifest, or None while the job is not complete."""
        data = self._read(SUCCESS)
        return None if data is None else json.loads(data)

    def write_success(
        self, fingerprint: str, parts: Sequence[PartEntry], rejected_files: Mapping[str, str], extra: Mapping[str, Any]
    ) -> bool:
        """Writes the manifest, last of all. False when another run has just finished the same job."""
        manifest = {
            "fingerprint": fingerprint,
            "rows": sum(part.rows for part in parts),
            "failed": sum(part.failed for part in parts),
            **extra,
            "rejected_files": dict(rejected_files),
            "part_columns": ["name", "rows", "failed", "size_bytes", "sha256"],
            "parts": [
                [self.layout.name(part.shard), part.rows, part.failed, part.size_bytes, part.sha256] for part in parts
            ],
        }
        data = (json.dumps(manifest, indent=None, separators=(",", ":")) + "\n").encode()
        return self.storage.create_exclusive(SUCCESS, data, self.attempts)

    def sweep_attempts(self) -> None:
        """Deletes attempt files that killed workers left. The folder stays: a live writer may still need it."""
        for info in list(self.storage.list(self.attempts)):
            self.storage.delete(info.path)

    def write(self, name: str, data: bytes) -> None:
        """Writes or replaces one file of the output whole."""
        self.storage.replace(name, data)

    def read(self, name: str) -> bytes:
        return self.storage.read_bytes(name)

    def delete(self, name: str) -> None:
        self.storage.delete(name)

    def _read(self, name: str) -> bytes | None:
        return self.storage.read_bytes(name) if self.storage.exists(name) else None

    # -- replacing parts after a retry, rolled forward after a crash

    def stage_part(self, shard: int, data: bytes) -> None:
        """Writes a replacement beside the output; nothing changes until `begin_retry`.

        Its name holds its checksum: a worker of a dead run that comes late cannot change what a receipt speaks of.
        """
        self.storage.make_dirs("_work/retry")
        self.storage.replace(self._staged(shard, hashlib.sha256(data).hexdigest()), data)

    def begin_retry(self, receipts: Sequence[str]) -> None:
        """The point of no return: from here every later run finishes the replacement first."""
        self.write(RETRY_JOURNAL, json.dumps({"receipts": list(receipts)}).encode())

    def retry_begun(self) -> bool:
        """Whether a replacement waits to be finished."""
        return self.storage.exists(RETRY_JOURNAL)

    def finish_retry(self) -> None:
        """Moves staged parts into place if a retry was begun. Killed at any point, the next call goes on."""
        data = self._read(RETRY_JOURNAL)
        if data is None:
            return
        lines: list[str] = json.loads(data)["receipts"]
        receipts = [json.loads(line) for line in lines]
        self.delete(SUCCESS)
        for receipt in receipts:
            staged = self._staged(receipt["shard"], receipt["sha256"])
            self.storage.replace(self.layout.path(receipt["shard"]), self.storage.read_bytes(staged))
        # Receipts of the old parts must not outlive them: a new part may have the size of the old one.
        replaced = {receipt["shard"] for receipt in receipts}
        kept = [line for line in self.load_receipts() if json.loads(line)["shard"] not in replaced]
        stale = [info.path for info in self.storage.list(self._receipts)]
        self.save_receipts([*kept, *lines])
        for path in stale:
            self.delete(path)
        self.delete(RETRY_JOURNAL)
        self.discard_retry()

    def discard_retry(self) -> None:
        """Deletes what was staged."""
        self.storage.delete_prefix("_work/retry")

    def _staged(self, shard: int, sha256: str) -> str:
        return f"_work/retry/{sha256[:16]}-{self.layout.name(shard).replace('/', '-')}"


def _is_temporary(path: str) -> bool:
    """What `Storage.replace` leaves on a disk when it is killed."""
    name = path.rpartition("/")[2]
    return name.startswith(".") and name.endswith(".tmp")


def check_output_is_ours(ledger: Ledger) -> None:
    """Refuses a `data/` folder with files of somebody else."""
    if foreign := ledger.foreign_files():
        raise DataError(
            f"output.path: {ledger.url}/data holds files that hfray did not write ({', '.join(foreign[:3])}); "
            "choose another output.path"
        )
