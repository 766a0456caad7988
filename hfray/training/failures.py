"""What a training worker fails of, told so that it is not tried again: what new workers would meet again. Knows
exceptions only."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from hfray.data.store_errors import storage_error
from hfray.engines.failures import is_out_of_memory
from hfray.errors import EngineError, HfrayError, SpecError

CALMER = (
    "use a lower trainer.learning_rate, more trainer.warmup_steps or a lower trainer.max_grad_norm, and start over "
    "with --restart"
)
"""What to do about numbers that have become infinite."""
_CONTRADICTED = "DeepSpeed config values that mismatch TrainingArguments"
"""How Transformers begins to say that an author's configuration counts other steps than there are."""


@contextmanager
def told() -> Iterator[None]:
    """Raises EngineError for memory that is not enough, DataError for a disk that is full, SpecError for a package that
    is not there and for steps of an author's DeepSpeed configuration that are not the run's. Anything else is the loss
    of a worker or of a device, after which new workers may go on."""
    try:
        yield
    except HfrayError:
        raise
    except ImportError as error:
        raise SpecError(
            f"trainer, model: what they ask for is not installed where the workers run ({_line(error)}); install it"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise storage_error(error, error.filename or "to a disk where a worker runs", "write") from error
    except Exception as error:
        if _CONTRADICTED in str(error):
            raise SpecError(f"deepspeed: {_line(error)}") from error
        if not is_out_of_memory(error):
            raise
        raise EngineError(
            "a worker is out of memory; use a smaller trainer.per_device_train_batch_size (global_batch_size stays), "
            "trainer.activation_checkpointing: true or a higher stage as deepspeed; the same command then goes on from "
            f"the last checkpoint ({_line(error)})"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
