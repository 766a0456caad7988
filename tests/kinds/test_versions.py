"""The report names the releases that really ran."""

from __future__ import annotations

import ray
import torch
import transformers

import hfray
from hfray.kinds.versions import versions


def test_releases_are_those_of_the_imported_libraries() -> None:
    found = versions()
    assert (found["ray"], found["transformers"]) == (ray.__version__, transformers.__version__)
    assert found["torch"] == torch.__version__
    assert found["hfray"] == hfray.__version__
