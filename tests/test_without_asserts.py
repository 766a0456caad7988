"""T8: what guards an endpoint, a model's files and a job must hold where Python skips every `assert`. The asserts of
tests hold there too: pytest rewrites them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
QUICK = (
    "tests/data/test_extensions.py",
    "tests/models/test_folder.py",
    "tests/models/test_info.py",
    "tests/models/test_source.py",
    "tests/serving/test_access_log.py",
    "tests/serving/test_bodies.py",
    "tests/serving/test_guard.py",
    "tests/serving/test_guarded_routes.py",
    "tests/serving/test_json_body.py",
    "tests/serving/test_keys.py",
    "tests/serving/test_wire.py",
    "tests/submit",
    "tests/training/test_manifest.py",
    "tests/training/test_secret.py",
)
ALL = (
    *QUICK,
    "tests/kinds/test_cluster.py",
    "tests/kinds/test_ray_token.py",
    "tests/models/test_load.py",
    "tests/serving/test_by_hand.py",
    "tests/serving/test_by_hand_bounds.py",
    "tests/serving/test_by_hand_names.py",
    "tests/serving/test_openapi.py",
    "tests/serving/test_playground_door.py",
    "tests/serving/test_replica.py",
    "tests/serving/test_templates.py",
    "tests/training/test_checkpoints.py",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "marks"),
    [(QUICK, "not chaos and not slow"), pytest.param(ALL, "not chaos", marks=pytest.mark.chaos)],
    ids=["quick", "all"],
)
def test_what_guards_holds_without_asserts(files: tuple[str, ...], marks: str) -> None:
    unheard = "ignore:assertions not in test modules:pytest.PytestConfigWarning"
    command = [sys.executable, "-O", "-m", "pytest", "-m", marks, "-W", unheard, "-p", "no:cacheprovider", *files]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-5000:]
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) > 200
