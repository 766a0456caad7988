"""Shared fixtures: where the real data lies, and threads capped so that tests share two cores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

# The asserts of shared helpers explain themselves too, and hold under `python -O`. Here, before any test imports them.
pytest.register_assert_rewrite(
    *(f"tests.serving.{each}" for each in ("front", "office", "paced", "site")),
    *(f"tests.promises.{each}" for each in ("endpoints", "head", "oracle", "rig", "stranger")),
)
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA.name}: see CONTRIBUTING.md")
    return SHARED_DATA
