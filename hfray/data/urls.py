"""What a path or a URL of a job says by itself. Knows spellings; opens nothing, and imports none of what could."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from hfray.errors import SpecError

MAGIC = re.compile(r"[*?\[]")
"""What makes a path a glob."""
_ALIASES = {"gcs": "gs", "s3a": "s3"}
_SCHEMES = ("s3", "gs", "az", "hf")


def parse_url(url: str) -> tuple[str, str, str]:
    """(scheme, bucket, key). A local path is ("file", "", absolute path). Raises SpecError for other schemes."""
    if "://" not in url:
        return "file", "", os.path.abspath(os.path.expanduser(url))
    scheme, rest = url.split("://", 1)
    scheme = _ALIASES.get(scheme.lower(), scheme.lower())
    if scheme == "file":
        return "file", "", os.path.abspath(unquote(urlsplit(url).path))
    if scheme not in _SCHEMES:
        raise SpecError(f"{url}: unknown storage {scheme + '://'!r}; use a local path, {', '.join(_SCHEMES)}://")
    if scheme == "hf":
        return "hf", "", rest.strip("/")
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise SpecError(f"{url}: names no bucket; write {scheme}://bucket/path")
    return scheme, bucket, "/".join(part for part in key.split("/") if part)


def above_glob(path: str) -> str:
    """The folder above the first wildcard of a path; the path itself where it has none."""
    found = MAGIC.search(path)
    return path if found is None else path[: found.start()].rpartition("/")[0]
