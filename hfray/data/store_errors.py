"""Foreign storage errors, translated in one place. Knows errno, obstore's and the hub's error classes by name."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from hfray.errors import DataError, HfrayError

_FOREIGN = ("obstore", "huggingface_hub", "httpx", "httpcore", "requests")

_ADVICE_BY_ERRNO = {
    errno.ENOSPC: "no space left: free some or choose another place; the same command then goes on",
    errno.EDQUOT: "the disk quota is used up: free some space; the same command then goes on",
    errno.EACCES: "permission denied: check the owner and mode of the folder",
    errno.EPERM: "operation not permitted: check the owner and mode of the folder",
    errno.EROFS: "the file system is read only: choose another place",
    errno.ENOENT: "no such file, folder or bucket",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "this is a folder, not a file",
    errno.EMFILE: "too many open files: raise `ulimit -n`",
    errno.EIO: "the disk reports an input/output error: check the hardware or the mount",
    errno.ESTALE: "the network mount lost the file: mount it again",
}

_ADVICE_BY_NAME = {
    "PermissionDeniedError": "the store denies access: the credentials lack the permission",
    "UnauthenticatedError": "the store wants credentials: set its usual environment variables (AWS_ACCESS_KEY_ID, "
    "GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME, ...; AWS_SKIP_SIGNATURE=true for a public bucket)",
    "NotSupportedError": "the store lacks this operation",
    "OfflineModeIsEnabled": "offline mode is on (HF_HUB_OFFLINE): unset it, or use files that are already here",
    "RepositoryNotFoundError": "no such repository on the hub, or it is private and HF_TOKEN is not set",
    "GatedRepoError": "the repository is gated: accept its terms on the hub and set HF_TOKEN",
    "RevisionNotFoundError": "no such revision on the hub",
    "EntryNotFoundError": "no such file on the hub",
}


@contextmanager
def translated(url: str, doing: str) -> Iterator[None]:
    """Turns what a disk, a store or the hub raises inside the block into DataError; a bug stays what it is."""
    try:
        yield
    except HfrayError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith(_FOREIGN):
            raise
        raise storage_error(error, url, doing) from error


def storage_error(error: Exception, url: str, doing: str) -> DataError:
    """The DataError for a foreign one: where, what went wrong, what to do."""
    return DataError(f"cannot {doing} {url}: {_advice(error)}")


def _advice(error: Exception) -> str:
    for cls in type(error).__mro__:
        if cls.__name__ in _ADVICE_BY_NAME:
            return _ADVICE_BY_NAME[cls.__name__]
    if isinstance(error, FileNotFoundError):
        return _ADVICE_BY_ERRNO[errno.ENOENT]
    if isinstance(error, OSError) and error.errno in _ADVICE_BY_ERRNO:
        return _ADVICE_BY_ERRNO[error.errno]
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror or error}"
    lines = str(error).strip().splitlines()
    reason = lines[0][:300] if lines else type(error).__name__
    return f"the store cannot be reached or refuses: {reason} (check the endpoint, the network and the credentials)"
