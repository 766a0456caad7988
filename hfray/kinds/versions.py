"""Which releases made an output. Reads installed metadata; imports none of the libraries."""

from __future__ import annotations

import platform
from importlib.metadata import version

import hfray

LIBRARIES = ("ray", "torch", "transformers")


def versions() -> dict[str, str]:
    """Name to release: hfray, the libraries that shape an answer, Python."""
    return {
        "hfray": hfray.__version__,
        **{name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
    }
