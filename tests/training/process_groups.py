"""Groups of real processes that talk over gloo, for tests. A server process imports the heavy libraries once and forks
the members of every group, which would take ten seconds each otherwise.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ENVIRONMENT = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "LOCAL_SIZE": "1", "TOKENIZERS_PARALLELISM": "false"}
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.training.imports"])

PATIENCE_S = 300.0
"""Of a machine that is busy with other things."""

Job = Callable[[int, int, Any], Any]


def run_group(job: Job, world_size: int, argument: Any, folder: Path) -> list[Any]:
    """What `job(rank, world_size, argument)` returned on each rank, as plain JSON. job: a function of a module;
    folder: a new one, for what the members have to say."""
    codes = end_group(job, world_size, argument, folder)
    # The first of them is to blame; the others miss it.
    failed = [path.read_text() for path in sorted(folder.glob("error-*"), key=lambda each: each.stat().st_mtime_ns)]
    assert not failed, failed[0]
    assert codes == [0] * world_size
    return [json.loads((folder / f"result-{rank}").read_text()) for rank in range(world_size)]


def end_group(job: Job, world_size: int, argument: Any, folder: Path) -> list[int | None]:
    """The exit codes of a group whose members may fail; `error-<rank>` in the folder says how."""
    folder.mkdir(parents=True)
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        port = _free_port()
        members = [
            _context.Process(target=_member, args=(job, rank, world_size, port, argument, folder))
            for rank in range(world_size)
        ]
        for member in members:
            member.start()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    deadline = time.monotonic() + PATIENCE_S
    for member in members:
        member.join(max(0.0, deadline - time.monotonic()))
    hanging = [member for member in members if member.is_alive()]
    for member in hanging:
        member.kill()
        member.join()
    assert not hanging, f"{len(hanging)} of {world_size} ranks waited for ever"
    return [member.exitcode for member in members]


def _member(job: Job, rank: int, world_size: int, port: int, argument: Any, folder: Path) -> None:
    os.environ.update(
        _ENVIRONMENT,
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    import deepspeed
    import torch

    torch.set_num_threads(1)
    # A kernel for inference, compiled at first use: half a minute at best, and again for each path of DeepSpeed.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # Collections, of which DeepSpeed wants many, need not look at what was imported: a second each.
    gc.freeze()
    try:
        deepspeed.init_distributed(dist_backend="gloo", verbose=False)
        result = job(rank, world_size, argument)
        (folder / f"result-{rank}").write_text(json.dumps(result))
    except BaseException:
        (folder / f"error-{rank}").write_text(traceback.format_exc())
        # Its peers wait for it in collective calls; they end when their connection does.
        os._exit(1)
    torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
