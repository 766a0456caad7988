"""Publishes a result folder to the hub: the model's own files in one commit. Knows folders and the hub's client.

The token is the environment's (HF_TOKEN, or the file of `hf auth login`) and is never an argument, which other users of
the machine could read. Pickled files never leave the folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfray.errors import DataError, SpecError
from hfray.models.model_card import model_card
from hfray.models.result import ResultFacts, read_facts
from hfray.models.result_files import CURVE_FILE, FACTS_FILE, is_shared_file, is_weights
from hfray.spec.yaml_lines import dump, parse_value

SUCCESS = "_SUCCESS"
_FORM = "[More Information Needed]"


@dataclass(frozen=True, slots=True)
class Pushed:
    """What the hub has now."""

    url: str
    """Of the commit."""
    repo_url: str
    commit: str
    files: tuple[str, ...]
    """What the repository was given; files that it had already are among them."""
    removed: tuple[str, ...]
    """Weights of an earlier model that were in the repository."""


def push(
    folder: Path, repo_id: str, *, private: bool = False, revision: str | None = None, message: str | None = None
) -> Pushed:
    """Creates the repository and the branch if need be, and commits.

    Raises SpecError for a folder that is no finished model, a token that is missing or may not, a name that is none;
    DataError when the hub does not answer.
    """
    facts = check_folder(folder)
    names = files_to_push(folder, facts)
    _check_hub(repo_id)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(library_name="hfray")
    with _translated(repo_id):
        repo_url = str(api.create_repo(repo_id, private=private or None, exist_ok=True))
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        there = api.list_repo_files(repo_id, revision=revision)
        stale = tuple(name for name in there if is_weights(name) and name not in names)
        own = {FACTS_FILE: shared_facts(facts)}
        operations: list[Any] = [CommitOperationAdd(name, own.get(name, folder / name)) for name in names]
        if "README.md" not in names:
            card = model_card(facts, title=repo_id, curve=_curve(names))
            operations.append(CommitOperationAdd("README.md", card.encode()))
        operations += [CommitOperationDelete(name) for name in stale]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the hub's advice on metadata, which is the author's
            warnings.simplefilter("ignore", DeprecationWarning)  # of the client's way to call its HTTP library
            commit = api.create_commit(
                repo_id, operations, commit_message=message or f"hfray: {facts.name}", revision=revision
            )
    given = tuple(each.path_in_repo for each in operations if isinstance(each, CommitOperationAdd))
    return Pushed(str(commit.commit_url), repo_url, str(commit.oid), given, stale)


def check_folder(folder: Path) -> ResultFacts:
    """Raises SpecError for a folder that is not a finished model of hfray, or is of no use to others."""
    if not folder.is_dir():
        raise SpecError(f"{folder}: there is no such folder")
    facts = read_facts(folder)
    if facts is None:
        raise SpecError(f"{folder}: it has no hfray.json, so it is no training result and no export of hfray")
    if not (folder / SUCCESS).is_file():
        raise SpecError(f"{folder}: it has no {SUCCESS}: its job has not finished; run the same command again first")
    if not any(is_weights(name) and name.endswith(".safetensors") for name in _names(folder)):
        raise SpecError(f"{folder}: it holds no safetensors weights; nothing else is published")
    attached = facts.adapter is not None and not facts.adapter.merged
    if attached and facts.base is not None and not facts.base.is_shared:
        raise SpecError(
            f"{folder}: an adapter of {facts.base.path}, a folder that only this machine has; merge it first (hfray "
            "export) and push what comes out"
        )
    return facts


def shared_facts(facts: ResultFacts) -> bytes:
    """`hfray.json` as others get it: of folders that only this machine has, the name without the way there."""
    told: dict[str, Any] = {"data": tuple(map(_shared_path, facts.data)), "spec": _shared_spec(facts.spec)}
    told["training_spec"] = _shared_spec(facts.training_spec)
    for field in ("base", "adapter"):
        part = getattr(facts, field)
        if part is not None and part.path is not None:
            told[field] = part.model_copy(update={"path": _shared_path(part.path)})
    return facts.model_copy(update=told).to_json().encode()


def _shared_path(path: str) -> str:
    """A path of this machine without the way there; anything else as it is."""
    local = path.removeprefix("file://")
    return Path(local).name if local.startswith(("/", "~")) else path


def _shared_spec(text: str) -> str:
    """A job in YAML, whose paths are the values of `path` and `adapter`, alone or in a list."""
    job = parse_value(text) if text else None
    return dump(_walked(job)) if isinstance(job, dict) else ""


def _walked(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _walked(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_walked(each, key) for each in value]
    return _shared_path(value) if isinstance(value, str) and key in ("path", "adapter") else value


def files_to_push(folder: Path, facts: ResultFacts) -> tuple[str, ...]:
    """The files that belong to the model, without pickled ones, logs, checkpoints and the job's own, and without a
    card that nobody has written."""
    names = tuple(name for name in _names(folder) if is_shared_file(name))
    return tuple(name for name in names if name != "README.md" or _is_written(folder / name, facts, names))


def _is_written(card: Path, facts: ResultFacts, names: Collection[str]) -> bool:
    """Whether somebody has: PEFT leaves a form beside every adapter, with a path of this machine, and a training a card
    that names the job, which is no name on the hub."""
    text = card.read_text("utf-8", errors="replace")
    return _FORM not in text and text != model_card(facts, title=facts.name, curve=_curve(names))


def _curve(names: Collection[str]) -> str | None:
    return CURVE_FILE if CURVE_FILE in names else None


def _names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _check_hub(repo_id: str) -> None:
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise SpecError(f"{repo_id!r} is no name of a repository: {error}") from None
    if constants.HF_HUB_OFFLINE:
        raise SpecError("HF_HUB_OFFLINE is set; unset it to publish")
    if get_token() is None:
        raise SpecError("no token for the hub: set HF_TOKEN to one that may write, or log in with `hf auth login`")


@contextmanager
def _translated(repo_id: str) -> Iterator[None]:
    """The hub's refusals as SpecError, its silence as DataError."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        reason = " ".join(str(error).split())[:300]
        if status == 401:
            raise SpecError(f"{repo_id}: the hub does not know this token; set HF_TOKEN to a valid one") from None
        if status in (402, 403):
            raise SpecError(f"{repo_id}: this token may not write there: {reason}") from None
        if status == 404:
            raise SpecError(f"{repo_id}: the hub has no such repository or branch for this token") from None
        raise DataError(f"{repo_id}: the hub did not take it: {reason}; run the same command again") from error
    except ValueError as error:
        raise SpecError(f"{repo_id}: {' '.join(str(error).split())[:300]}") from error
    except Exception as error:  # whatever the client's HTTP library raises
        cause = error.__cause__ or error
        raise DataError(
            f"{repo_id}: the hub cannot be reached ({type(cause).__name__}: {' '.join(str(cause).split())[:200]}); run "
            "the same command again"
        ) from error
