"""The file of API keys: its entries, how it is read and written. Knows YAML and file modes; not requests, not clocks.

    - id: alice
      sha256: 9f86d0818...           # of the key; the key itself is nowhere
      models: [banking-intents]      # or ["*"]
      requests_per_minute: 600       # null: no limit
      tokens_per_minute: 100000
      tokens_per_day: null
      disabled: false

Somebody may paste a key where it does not belong, so no message about the file shows what looks like one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from hfray.errors import SpecError
from hfray.spec.problems import close_or_known, problems
from hfray.spec.shape import dotted
from hfray.spec.yaml_lines import Document, dump, parse
from hfray.types import Strict

MAX_FILE_BYTES = 4 << 20
ANY_MODEL = "*"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIKE_A_KEY = re.compile(r"hfray-[A-Za-z0-9_-]{16,}")
_HEADER = "# Keys of hfray's endpoints, kept by `hfray keys`, which leaves no other comments.\n"


def _id(value: Any) -> Any:
    if not isinstance(value, str) or not _ID.fullmatch(value) or _LIKE_A_KEY.search(value):
        raise ValueError("must be a name of letters, digits, dots, dashes, underscores, 64 at most, and not a key")
    return value


def _sha256(value: Any) -> Any:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError("must be the SHA-256 of a key, 64 digits of 0-9a-f; `hfray keys add` makes both")
    return value


Limit = Annotated[int, Field(ge=1, le=10**12, strict=True)]


class Key(Strict):
    """Who may ask, for what, and how much."""

    id: Annotated[str, BeforeValidator(_id)]
    """Stands in the access log; a key's text never does."""
    sha256: Annotated[str, BeforeValidator(_sha256)] = Field(repr=False)
    models: Annotated[tuple[str, ...], Field(max_length=1000)] = (ANY_MODEL,)
    """Names of endpoints, or `*` for all."""
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    tokens_per_day: Limit | None = None
    disabled: bool = False

    def allows(self, model: str) -> bool:
        return ANY_MODEL in self.models or model in self.models


class _File(Strict):
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one content of the file from the next without reading it."""

    mtime_ns: int
    size_bytes: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_mtime_ns, status.st_size, status.st_ino)


def read_keys(path: Path) -> tuple[tuple[Key, ...], Stamp]:
    """The entries, and the stamp of the file that they were read from.

    Raises SpecError, one line for each mistake with its place in the file, and for a file that others may open.
    """
    text, stamp = _read(path)
    try:
        return _entries(parse(text, str(path)), str(path)), stamp
    except SpecError as error:
        raise SpecError("\n".join(_without_keys(line, str(path)) for line in str(error).splitlines())) from None


def _read(path: Path) -> tuple[str, Stamp]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SpecError(f"{path}: not a file of keys")
            # A file that root has mounted for our group, such as a Kubernetes Secret, is nobody else's.
            mounted = status.st_uid == 0 != os.geteuid()
            if status.st_mode & (0o027 if mounted else 0o077):
                mode = stat.S_IMODE(status.st_mode)
                mend = f"chmod 600 {shlex.quote(str(path))}"
                raise SpecError(f"{path}: others may open the keys (mode {mode:04o}); mend it with: {mend}")
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise SpecError(f"{path}: there is no such file; `hfray keys add` makes it") from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise SpecError(f"{path}: not a file of keys: larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        return content.decode("utf-8"), Stamp.of(status)
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not a file of keys: not UTF-8 text (byte {error.start + 1:,})") from None


def _entries(document: Document, name: str) -> tuple[Key, ...]:
    if not isinstance(document.value, list):
        raise SpecError(f"{name}:1: must be a list of entries, each with id and sha256; `hfray keys add` writes one")
    try:
        keys = _File.model_validate({"keys": document.value}).keys
    except ValidationError as error:
        lines = []
        for (_, *rest), text in problems(_File, error.errors(include_url=False)).items():
            place = tuple(rest)
            if text.startswith("missing"):
                text = "missing"  # without the hint at `hfray explain`, which knows jobs
            elif text.startswith("unknown key"):
                text = f"unknown key{close_or_known(place[-1], Key.model_fields)}"
            lines.append((document.line_of(place), f"{name}:{document.line_of(place)}: {dotted(place)}: {text}"))
        raise SpecError("\n".join(text for _, text in sorted(lines))) from None
    for field in ("id", "sha256"):
        values = [getattr(key, field) for key in keys]
        for value in (value for value, count in Counter(values).items() if count > 1):
            first, second = [index for index, each in enumerate(values) if each == value][:2]
            line, before = document.line_of((second, field)), document.line_of((first, field))
            raise SpecError(f"{name}:{line}: {second}.{field}: given twice, first on line {before}")
    return keys


def _without_keys(line: str, name: str) -> str:
    own = name if line.startswith(name) else ""
    return own + _LIKE_A_KEY.sub("(a key, hidden)", line.removeprefix(own))


def write_keys(path: Path, keys: Sequence[Key]) -> None:
    """Replaces the file in one step, with mode 0600. Raises SpecError where the folder does not let it."""
    entries = [key.model_dump(mode="json") for key in keys]
    text = _HEADER + (dump(entries) if entries else "[]\n")
    try:
        descriptor, attempt = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp opens with 0600
    except OSError as error:
        raise SpecError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(attempt, path)
    except OSError as error:
        Path(attempt).unlink(missing_ok=True)
        raise SpecError(f"{path}: cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def one_writer(path: Path) -> Iterator[None]:
    """Held around reading and writing, so that of two commands at a time neither loses what the other wrote."""
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise SpecError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with contextlib.suppress(OSError):  # some network file systems lock no folders
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
