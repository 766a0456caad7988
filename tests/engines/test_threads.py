"""Torch's helper threads end with whoever called it before the engine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hfray.engines.threads import in_brief_thread
from hfray.inference.model_use import check_use, load_use
from hfray.spec.endpoint import EndpointSpec
from hfray.types import Generated, GenerationParams, Item
from tests.models.support import save_decoder

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").exists() or (os.cpu_count() or 1) < 2, reason="counts the threads of two cores on Linux"
)
BIG = 512


def helpers() -> set[str]:
    """Threads that Python did not start."""
    ours = {str(thread.native_id) for thread in threading.enumerate()}
    return {each.name for each in Path("/proc/self/task").iterdir()} - ours


def num_new(before: set[str], wanted: int) -> int:
    """How many helpers came since, once that is the wanted number, or after ten seconds."""
    deadline = time.monotonic() + 10
    while (found := len(helpers() - before)) != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def multiply() -> Any:
    torch.set_num_threads(2)
    return torch.ones(BIG, BIG) @ torch.ones(BIG, BIG)


def in_new_thread(run: Callable[[], Any]) -> Any:
    """In a thread that stays, with no helpers yet: whatever else the tests' own thread has."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def test_helpers_end_with_their_thread() -> None:
    def count() -> None:
        in_brief_thread(multiply)  # what the first one of a process starts for good is not what is counted
        before = helpers()
        in_brief_thread(multiply)
        assert num_new(before, 0) == 0
        multiply()
        assert num_new(before, 1) == 1  # so that the count does see them

    in_new_thread(count)


def test_what_it_returns_and_raises() -> None:
    assert in_brief_thread(divmod, 7, 4) == (1, 3)
    with pytest.raises(ZeroDivisionError):
        in_brief_thread(divmod, 7, 0)


def test_only_the_engine_keeps_helpers(tmp_path: Path) -> None:
    save_decoder(tmp_path, hidden_size=BIG, intermediate_size=BIG)  # of any less, one thread would do all
    spec = {
        "model": {"path": str(tmp_path)},
        "task": "text-generation",
        "engine": {"name": "continuous", "cache_gb": 0.1},
    }
    use = EndpointSpec.model_validate(spec)
    item = Item("causal", {"input_ids": np.arange(4, 54).repeat(2)}, Generated(), GenerationParams(max_new_tokens=2))

    def count() -> None:
        torch.set_num_threads(2)
        before = helpers()
        engine = load_use(check_use(use)[0]).engine
        try:
            assert num_new(before, 0) == 0
            engine.run([item])
            assert num_new(before, 1) == 1
        finally:
            engine.close()

    in_new_thread(count)
