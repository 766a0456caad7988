"""Runs `hfray` in fresh processes without importing torch and Ray anew for each: a parent that has imported them forks.

A process of its own, spoken to in JSON lines: {"start": {...}} answers a pid, {"poll": pid} an exit status or null.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from ray._raylet import ActorClassID


def main() -> None:
    _import()
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any
        if "start" in request:
            answer = os.fork()
            if answer == 0:
                return _child(**request["start"])
        else:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)


def _import() -> None:
    """Without a draw from Ray's random numbers: children would go on from one state, give their objects the same ids,
    and end when two start at once. Ray Data draws one for each actor class that it declares."""
    import ray.actor

    ray.actor.ActorClassID = _Drawn  # type: ignore[misc, assignment]
    import ray.data
    import torch
    import transformers

    import hfray.cli
    import hfray.kinds.run
    import hfray.kinds.score

    _ = (ray.data, torch, transformers.AutoTokenizer, transformers.AutoConfig, hfray.cli, hfray.kinds)


class _Drawn(ActorClassID):
    """An id from the system's random numbers."""

    @classmethod
    def from_random(cls) -> ActorClassID:
        return ActorClassID(os.urandom(ActorClassID.size()))


def _child(argv: list[str], env: dict[str, str], log: str, faults: str) -> None:
    with open(f"{faults}/driver", "w") as file:
        file.write(str(os.getpid()))
    os.environ.update(env)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor, place in ((null, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, place)
    sys.argv = ["hfray", *argv]
    from hfray.cli import main as hfray

    hfray()


if __name__ == "__main__":
    main()
