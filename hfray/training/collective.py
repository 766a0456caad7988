"""What the processes of a training run tell each other beside tensors: small JSON values, and whether all is well.
Knows torch's default process group; nothing of checkpoints.

torch's own `all_gather_object` sends pickles.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hfray.errors import DataError, EngineError, HfrayError, SpecError

_ERRORS: dict[str, type[HfrayError]] = {each.__name__: each for each in (SpecError, DataError, EngineError)}


class OutOfStep(EngineError):
    """This rank has left a collective call that the others still wait in: nothing can be told to them any more, the
    group has to end. `together` lets it pass."""


def gather_json(value: Any) -> list[Any]:
    """Every rank's value, in the order of ranks; all ranks must call it. Alone, one's own."""
    import torch
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [value]
    on_gpu = dist.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(content)], device=device))
    longest = max(int(size) for size in sizes)
    padded = torch.zeros(longest, dtype=torch.uint8, device=device)
    padded[: len(content)] = content
    parts = [torch.zeros_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return [json.loads(part[: int(size)].cpu().numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)]


@contextmanager
def together(what: str) -> Iterator[None]:
    """A block that every rank runs, without collective calls in it: if it fails on one, it fails on all with that
    rank's error, so that nobody waits for a peer that is gone.

    what: where an OSError happened, such as `checkpoint /out/step-10`. Raises SpecError, DataError, EngineError;
    OutOfStep on the one rank that it happens to.
    """
    failed: HfrayError | None = None
    cause: BaseException | None = None
    try:
        yield
    except OutOfStep:
        raise
    except tuple(_ERRORS.values()) as error:
        failed = error
    except OSError as error:
        failed, cause = DataError(f"{what}: {error.strerror or error}; free space, or mend the disk"), error
    except Exception as error:  # whatever it is, the others must not wait for it
        failed, cause = EngineError(f"{what}: {type(error).__name__}: {error}"), error
    report = None if failed is None else [type(failed).__name__, str(failed)]
    reports = [each for each in gather_json(report) if each is not None]
    if failed is not None:
        raise failed from cause
    if reports:
        name, message = reports[0]
        raise _ERRORS[name](message)
