"""Forward passes on ranks that have unequal work, for a model whose weights are gathered from all ranks (ZeRO-3): who
has finished keeps answering until all have. Knows forward calls; not what they are for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from hfray.training.collective import OutOfStep


@contextmanager
def in_lockstep(model: Any, device: torch.device, *, needed: bool) -> Iterator[None]:
    """Within it ranks may call `model` (not parts of it) any number of times each, and make no other collective call.
    needed: whether they must agree. A rank whose block raises keeps answering too, so that the others come to the end
    of theirs: `with together(...), in_lockstep(...)` then tells all of them. Raises OutOfStep if a call of `model`
    itself has failed, caught or not: it has left the others in the middle of theirs."""
    if not needed or not dist.is_initialized() or dist.get_world_size() == 1:
        yield
        return
    lockstep = _Lockstep(model, device)
    # Before DeepSpeed's own, which fetches weights already: on all ranks the word goes round first.
    handles = [
        model.register_forward_pre_hook(lockstep.before_forward, prepend=True),
        model.register_forward_hook(lockstep.after_forward),
    ]
    try:
        try:
            yield
        except OutOfStep:
            raise
        except Exception as error:
            lockstep.check(error)
            lockstep.wait_for_others()
            raise
        lockstep.check()
        lockstep.wait_for_others()
    finally:
        for handle in handles:
            handle.remove()


class _Lockstep:
    def __init__(self, model: Any, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._finished = False
        self._inside = False

    def before_forward(self, module: Any, args: Any) -> None:
        self.check()
        if not self._finished:
            self._anybody_works(True)
        self._inside = True

    def after_forward(self, module: Any, args: Any, output: Any) -> None:
        self._inside = False

    def check(self, error: Exception | None = None) -> None:
        """Raises OutOfStep unless the last call came to its end. error: what it may have ended with."""
        if self._inside:
            why = "" if error is None else f" ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            raise OutOfStep(
                f"a forward pass failed{why} on rank {dist.get_rank()}, in the middle of what all ranks do together "
                "under ZeRO-3; if it was for memory, use a smaller trainer.per_device_eval_batch_size"
            ) from error

    def wait_for_others(self) -> None:
        self._finished = True
        while self._anybody_works(False):
            try:
                with torch.no_grad():
                    self._model(**self._smallest())
            except Exception as error:
                self.check(error)
                raise

    def _anybody_works(self, this_one: bool) -> bool:
        working = torch.tensor(int(this_one), device=self._device)
        dist.all_reduce(working)
        return bool(working)

    def _smallest(self) -> dict[str, Any]:
        """Two positions are the least that every head takes."""
        ids = torch.zeros(1, 2, dtype=torch.long, device=self._device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return inputs | ({"decoder_input_ids": ids} if self._model.config.is_encoder_decoder else {})
