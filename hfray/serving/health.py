"""Whether a model answers, truly: its thread is alive, its step is not stuck, its numbers are numbers, and its inputs
can be encoded. Knows an engine, a predictor and the thread that encodes; not Ray, not who asks.

It is read beside the threads that work, never behind their queues: what never ends must be noticed.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hfray.engines.base import Engine
from hfray.errors import EngineError, RowError
from hfray.inference.predictor import Pending, Predictor
from hfray.serving.coder import Coder
from hfray.types import GenerationParams, Item

NUM_BAD = 3
"""So many answers in a row that are no finite numbers, and the model is asked itself, busy or not."""
CANARY_TEXT = "hello, hello"
"""Two tokens at least: of one alone a language model has nothing to foresee."""
_OWN_FAULTS = ("NonFiniteOutput", "ModelFailure")
ENCODING_SHARE = 1 / 3
"""Of the time after which a step counts as stuck: what the encoding of one call's inputs may take. A call that is too
slow, then each of its requests alone, and the replica is still within that time."""


class Health:
    """Of one replica's model."""

    def __init__(
        self,
        engine: Engine,
        predictor: Predictor,
        *,
        stuck_s: float,
    ) -> None:
        """stuck_s: how long one step may take. Raises EngineError where the task takes no short input."""
        self._engine = engine
        self._predictor = predictor
        self._stuck_s = stuck_s
        self._num_bad = 0
        self._canary = self._item()
        self.coder = Coder(stuck_s * ENCODING_SHARE, probe=self._item, discard=_discard)
        """Encodes for all who ask the model."""

    def saw(self, results: Sequence[Any]) -> None:
        """Told of every answer, so that a model that has begun to fail is asked. Of a request's own faults, which never
        reached the model, it takes no notice."""
        for result in results:
            if not isinstance(result, RowError):
                self._num_bad = 0
            elif result.type in _OWN_FAULTS:
                self._num_bad += 1

    def check(self) -> None:
        """Raises EngineError for a model that is dead, stuck, answers nonsense or has no tokenizer any more. Takes up
        to `stuck_s`."""
        if not self._engine.alive:
            raise EngineError("the model's thread has ended")
        self.coder.check()
        since = self._engine.stats.working_since
        if since is not None and (working_s := time.monotonic() - since) > self._stuck_s:
            raise EngineError(f"the model has worked at one step for {working_s:.0f} s")
        if since is None or self._num_bad >= NUM_BAD:
            self.canary(self._stuck_s)

    def canary(self, timeout_s: float) -> None:
        """Lets the model compute one short input. Raises EngineError where it fails, or does not come to it in time
        though it does nothing else."""
        before = self._engine.stats.batches
        answer = self._engine.submit([self._canary])
        try:
            (output,) = answer.result(timeout_s)
        except TimeoutError:
            answer.cancel()
            since = self._engine.stats.working_since
            working = since is not None and time.monotonic() - since < timeout_s / 2
            if working or self._engine.stats.batches != before:  # it works at what was there before
                return
            raise EngineError(f"the model did not answer a short input within {timeout_s:.0f} s") from None
        if isinstance(output, RowError):
            raise EngineError(f"the model failed at a short input: {output.message}")
        self._num_bad = 0

    def _item(self) -> Item:
        """The first item of a row that the task takes."""
        task = self._predictor.task
        row: dict[str, Any] = dict.fromkeys(task.columns, CANARY_TEXT)
        if task.needs_images:
            row["image"] = _image()
        if "candidate_labels" in task.optional_columns:
            row["candidate_labels"] = [CANARY_TEXT]
        mask = getattr(task.processor.tokenizer, "mask_token", None)
        if task.name == "fill-mask" and mask:
            row["text"] = f"{CANARY_TEXT} {mask}"
        (encoded,) = self._predictor.encode([row])
        if isinstance(encoded, RowError):
            raise EngineError(f"task {task.name} does not take the short input that its health is told by: {encoded}")
        item = encoded.items[0]
        return replace(item, generation=GenerationParams(max_new_tokens=1)) if item.generation is not None else item


def _discard(result: Any) -> None:
    """Texts that were encoded too late would be computed for nobody."""
    if isinstance(result, Pending):
        result.future.cancel()


def _image() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()
