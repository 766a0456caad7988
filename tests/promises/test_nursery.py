"""Drivers that are forked from one process are as apart as drivers that are started one by one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.promises.rig import REPOSITORY, environment

DRAW = """
import os
from tests.promises import nursery
nursery._import()
import ray
for _ in range(2):
    child = os.fork()
    if child == 0:
        print(ray.ObjectRef.from_random().hex(), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_children_draw_ids_of_their_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRAW],
        cwd=REPOSITORY, env=environment(tmp_path), capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, second = done.stdout.split()
    assert first != second
