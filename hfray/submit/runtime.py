"""What a submitted job runs in: the job's files, this very hfray, packages and variables. Knows Ray's runtime
environments; not the cluster.

Everything here is shown by Ray's dashboard and in its logs, so no secret goes in: those are in the environment of the
nodes, or in files there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hfray
from hfray.errors import SpecError
from hfray.spec.kinds import Job
from hfray.spec.yaml_lines import dump
from hfray.submit.resolve import as_given

JOB_FILE = "job.yaml"
STOP_S = 30
"""From the request to stop to the end by force; Ray's own 3 seconds would cut a commit."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|PRIVATE|(^|_)(API)?KEYS?(_|$)", re.IGNORECASE)
_OURS = "RAY_"


def command(flags: Sequence[str] = ()) -> str:
    """What the head runs. In place of the shell that Ray starts it in, which would keep signals to itself."""
    return " ".join(["exec python -m hfray.cli run", JOB_FILE, *flags])


def write_job(folder: Path, job: Job) -> None:
    """The job's file, as the cluster reads it."""
    (folder / JOB_FILE).write_text(dump(as_given(job)), encoding="utf-8")


def runtime_env(folder: Path, *, pip: Sequence[str] = (), variables: Sequence[str] = ()) -> dict[str, Any]:
    """Ray's `runtime_env`. folder: of the job's file; pip: requirements; variables: names of this environment's.

    hfray goes along as it is here, whether the nodes have one or not: the code that has checked a job is the code that
    runs it. Raises SpecError for a variable that is not set, or that is a secret by its name.
    """
    env: dict[str, Any] = {
        "working_dir": str(folder),
        "py_modules": [str(Path(hfray.__file__).parent)],
        "excludes": ["__pycache__"],
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S), **{name: _value(name) for name in variables}},
    }
    if pip:
        env["pip"] = list(pip)
    return env


def _value(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise SpecError(f"--env {name}: give the name of a variable alone; its value is taken from here")
    if _SECRET.search(name):
        raise SpecError(
            f"--env {name}: a secret by its name, and what is sent with a job can be read in Ray's dashboard and logs; "
            "set it where the cluster's nodes are started"
        )
    if name.startswith(_OURS):
        raise SpecError(f"--env {name}: a setting of the cluster's own, which a job must not change")
    if name not in os.environ:
        raise SpecError(f"--env {name}: not set here")
    return os.environ[name]
