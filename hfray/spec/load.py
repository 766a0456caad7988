"""A job file to a frozen spec; every mistake as `file:line: key: what is wrong, what to do`. Opens that one file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hfray.errors import SpecError
from hfray.spec.kinds import Job, job_kinds
from hfray.spec.problems import close_or_known, problems, shown
from hfray.spec.shape import Keys, dotted
from hfray.spec.yaml_lines import Document, dump, parse, parse_value

MAX_FILE_BYTES = 1 << 20
"""More is data that somebody took for a job."""
_Settings = TypeVar("_Settings", bound=BaseModel)


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Reads and validates a job file. `overrides` are `a.b=c`, applied before validation.

    Raises SpecError with one line for each problem, in the order of the file.
    """
    name = str(path)
    document = parse(read_text(Path(path)), name)
    value = document.value
    if value is None:
        raise SpecError(f"{name}: the file is empty; `hfray explain score` shows what a job needs")
    if not isinstance(value, dict):
        raise SpecError(f"{name}:1: must be a mapping of keys, such as `kind: score`, not {shown(value)}")
    cite = Citation(name, document, [_override(value, each) for each in overrides])
    kinds = job_kinds()
    kind = value.get("kind")
    if kind is None:
        raise SpecError(f"{cite(('kind',))}: missing; known: {', '.join(kinds)}")
    if not isinstance(kind, str) or kind not in kinds:
        raise SpecError(f"{cite(('kind',))}: unknown kind {shown(kind)}{close_or_known(kind, kinds)}")
    try:
        return kinds[kind].model_validate(value)
    except ValidationError as error:
        raise cite.error(problems(kinds[kind], error.errors(include_url=False))) from None


def load_settings(kind: type[_Settings], overrides: Sequence[str]) -> _Settings:
    """A value of `--set` alone, where there is no file. Raises SpecError as `load_job` does."""
    value: dict[str, Any] = {}
    cite = Citation("--set", Document(value), [_override(value, each) for each in overrides])
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise cite.error(problems(kind, error.errors(include_url=False))) from None


def job_text(path: str | Path, overrides: Sequence[str] = ()) -> str:
    """A file that `load_job` has read, to be read elsewhere: as it is, or with the overrides in it."""
    text = read_text(Path(path))
    if not overrides:
        return text
    value = parse(text, str(path)).value
    for each in overrides:
        _override(value, each)
    return dump(value)


def cite(path: str | Path, key: str, overrides: Sequence[str] = ()) -> str:
    """Where a job that `load_job` has read gives a key, for errors that are found later: `job.yaml:7: input.where`."""
    return citation(path, overrides)(tuple(key.split(".")))


def citation(path: str | Path, overrides: Sequence[str] = ()) -> Citation:
    """The same for many keys."""
    document = parse(read_text(Path(path)), str(path))
    return Citation(str(path), document, [_override(document.value, each) for each in overrides])


class Citation:
    """Where the author wrote a key: `job.yaml:7: engine.name`, or `--set engine.name`."""

    def __init__(self, name: str, document: Document, overridden: Sequence[Keys] = ()) -> None:
        self._name = name
        self._document = document
        self._overridden = overridden

    def __call__(self, keys: Keys) -> str:
        if self._is_overridden(keys):
            return f"--set {dotted(keys)}"
        return f"{self._name}:{self._document.line_of(keys)}" + (f": {dotted(keys)}" if keys else "")

    def error(self, found: Mapping[Keys, str]) -> SpecError:
        """All that is wrong, a line each, in the order of the file."""
        ordered = sorted(found.items(), key=lambda each: self.order(each[0]))
        return SpecError("\n".join(f"{self(keys)}: {text}" for keys, text in ordered))

    def order(self, keys: Keys) -> int:
        return 0 if self._is_overridden(keys) else self._document.line_of(keys)

    def _is_overridden(self, keys: Keys) -> bool:
        """Whether an override wrote the key, or a section around it that the file does not have."""
        in_file = len(self._document.nearest(keys))
        return any(
            shared == len(each) or shared > in_file for each in self._overridden if (shared := _num_shared(keys, each))
        )


def _num_shared(one: Keys, other: Keys) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def read_text(path: Path) -> str:
    """A small text file. Raises SpecError that says what is wrong with it."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise SpecError(f"{path}: not a job file: larger than 1 MiB")
        return content.decode("utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: there is no such file{_near(path)}") from None
    except IsADirectoryError:
        raise SpecError(f"{path}: a folder, not a job file") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not a job file: not UTF-8 text (byte {error.start + 1:,})") from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise SpecError(f"{str(path)!r}: not a file name") from None


def _near(path: Path) -> str:
    try:
        names = [each.name for each in path.parent.iterdir() if each.is_file()]
    except OSError:
        return f"; there is no folder {path.parent}"
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f", did you mean {path.parent / close[0]}?" if close else ""


def _override(value: dict[str, Any], override: str) -> Keys:
    """Applies `a.b=c`: sections that are not there are made, `a.0.b` is an entry of a list. Returns the keys of what
    was replaced: less than `a.b` where `a` was no section before."""
    place_text, equals, text = override.partition("=")
    keys = place_text.strip().split(".")
    if not equals or not all(keys):
        raise SpecError(f"--set {override}: write it as key=value, such as --set workers.max=4")
    done: list[str | int] = []
    replaced: Keys = ()
    place: Any = value
    for number, key in enumerate(keys):
        step = _step(place, key, override, done)
        done.append(step)
        if number + 1 == len(keys):
            new = parse_value(text)
        else:
            new = place.get(step) if isinstance(place, dict) else next(iter(place[int(step) :]), None)
            if not isinstance(new, dict | list):
                new = [] if keys[number + 1] == "0" else {}
                replaced = replaced or tuple(done)
        if isinstance(place, list):
            place[int(step) : int(step) + 1] = [new]
        else:
            place[step] = new
        place = new
    return replaced or tuple(done)


def _step(place: dict[Any, Any] | list[Any], key: str, override: str, done: Sequence[str | int]) -> str | int:
    if isinstance(place, dict):
        return key
    if not key.isdecimal() or int(key) > len(place):
        entries = f"{dotted(tuple(done))} is a list of {len(place)} (its first entry is 0)"
        raise SpecError(f"--set {override}: {entries}, without a {key!r}")
    return int(key)
