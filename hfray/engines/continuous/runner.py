"""The model and the tensors of its cache: slices in, next tokens out. Knows tensors; decides nothing about who runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import psutil
import torch

from hfray.engines.base import Token
from hfray.engines.continuous.attention import NAME, BlockTensors, attending
from hfray.engines.continuous.proof import (
    check_architecture,
    check_scores,
    observe_layers,
    position_limit,
    proof_tokens,
    refuse,
    takes,
)
from hfray.engines.continuous.rotation import Rotations, long_from
from hfray.engines.continuous.sampler import Sampler
from hfray.engines.continuous.scheduler import Slice
from hfray.engines.continuous.sequence import Sequence
from hfray.engines.continuous.step import Step
from hfray.engines.failures import is_device_lost, is_out_of_memory, vocab_size
from hfray.errors import EngineError
from hfray.models.adapter import body_of
from hfray.models.load import LoadedModel
from hfray.types import GenerationParams

CPU_CACHE_BYTES = 2**30
CPU_LEAST_TOKENS = 16384
CPU_SHARE = 0.25  # of the memory that is free
GPU_SHARE = 0.8
PROOF_BLOCKS = 2
T = TypeVar("T")


class Runner:
    """Switches the model to block-wise attention for as long as it lives; `close` switches it back.

    cache_bytes: most bytes of keys and values; None takes a share of the memory that is free, and of a GPU that other
    workers use too no more than `device_share`. Raises SpecError for a model that cannot be run so, EngineError where
    not even one block fits.
    """

    def __init__(
        self, loaded: LoadedModel, *, cache_bytes: int | None, block_tokens: int, device_share: float = 1.0
    ) -> None:
        self.block_tokens = block_tokens
        self._device_share = device_share
        self.num_blocks = 0
        self._tensors: Any = None
        self._loaded = loaded
        self._model = loaded.model
        base = body_of(self._model)
        check_architecture(base)
        self._base = base
        self._sampler = Sampler(base.generation_config, loaded.device)
        self._keeps_logits = takes(base, "logits_to_keep")
        self._own_attention = base.config._attn_implementation
        self.long_from = long_from(base)
        last = min(PROOF_BLOCKS * block_tokens + 3, position_limit(base) or 2**20)
        self._proof_ends = [max(1, last // 2 - 3), last - 2, last - 1, last]
        prompt = torch.tensor([proof_tokens(vocab_size(base) or 2, last)], device=loaded.device)
        with torch.inference_mode():
            wanted = base(input_ids=prompt, use_cache=False).logits[0, [end - 1 for end in self._proof_ends]]
            base.set_attn_implementation(NAME)
            self._rotations = Rotations(base)
            with self._closed_on_error():
                layers = self._answered(lambda: observe_layers(base, prompt))
                self.bytes_per_token = sum(layer.bytes_per_token for layer in layers.values())
                self._tensors = self._allocate(layers, self._cache_bytes(cache_bytes))
                check_scores(base, wanted, self._answered(lambda: self._proof(prompt[0].tolist())))

    def close(self) -> None:
        """The model attends as before; the cache is freed."""
        self._base.set_attn_implementation(self._own_attention)
        self._rotations.close()
        self._tensors = None

    def step(self, slices: Many[Slice], fresh: list[int]) -> list[tuple[Sequence, Token | None]]:
        """The next token of each sequence that has one; None where the model's scores are not finite numbers.

        fresh: blocks that have new owners.
        """
        if fresh:
            self._tensors.clear(torch.tensor(fresh, device=self._loaded.device))
        step = Step(slices, self.block_tokens, self._loaded.device)
        with self._adapted(slices, step):
            scores = self._scores(step)
        if not step.drawing:
            return []
        return list(zip(step.drawing, self._sampler(scores, step.drawing), strict=True))

    def _scores(self, step: Step) -> Any:
        """[drawing sequences, vocabulary]."""
        settings: dict[str, Any] = {"use_cache": False}
        if self._keeps_logits:
            settings["logits_to_keep"] = step.last_rows
        self._rotations.long_rows = step.long_rows
        with attending(lambda call: self._tensors.attend(step, call)):
            logits = self._model(input_ids=step.input_ids, position_ids=step.position_ids, **settings).logits[0]
        return logits if self._keeps_logits else logits[step.last_rows]

    def _adapted(self, slices: Many[Slice], step: Step) -> AbstractContextManager[None]:
        bank = self._loaded.adapters
        names = {each.sequence.adapter for each in slices} - {None}
        if bank is None or not names:
            return nullcontext()
        bank.ensure([name for name in names if name is not None])
        return bank.routed(step.routing())

    def _cache_bytes(self, wanted: int | None) -> int:
        if wanted is not None:
            return wanted
        if self._loaded.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._loaded.device)
            ours = total * self._device_share - torch.cuda.memory_reserved(self._loaded.device)
            return max(0, int(min(free, ours) * GPU_SHARE))
        free = psutil.virtual_memory().available  # with what only keeps copies of files
        return min(int(free * CPU_SHARE), max(CPU_CACHE_BYTES, CPU_LEAST_TOKENS * self.bytes_per_token))

    def _allocate(self, layers: Any, cache_bytes: int) -> BlockTensors:
        """As many blocks as the budget holds, or as fit after halving it."""
        num_blocks = cache_bytes // (self.bytes_per_token * self.block_tokens)
        while num_blocks > PROOF_BLOCKS:
            try:
                tensors = BlockTensors(layers, num_blocks, self.block_tokens, self._loaded.device)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                num_blocks //= 2
                continue
            self.num_blocks = num_blocks
            return tensors
        least = (PROOF_BLOCKS + 1) * self.bytes_per_token * self.block_tokens
        raise EngineError(f"the key-value cache needs {least:,} bytes at least; the budget is {cache_bytes:,}")

    def _proof(self, tokens: list[int]) -> Any:
        """Scores [4, vocabulary] after each of four slices of a prompt: two pieces, then two single tokens."""
        blocks = list(range(PROOF_BLOCKS + 1))
        found = []
        start = 0
        for end in self._proof_ends:
            sequence = Sequence(GenerationParams(), tokens[:end], _Nobody(), 0, b"", blocks=blocks)
            found.append(
                self._scores(Step([Slice(sequence, start, end - start)], self.block_tokens, self._loaded.device))
            )
            start = end
        return torch.cat(found)

    def _answered(self, run: Callable[[], T]) -> T:
        """What the model's forward gives; one that fails over packed rows is refused."""
        try:
            return run()
        except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
            if is_out_of_memory(error) or is_device_lost(error):
                raise
            raise refuse(self._base, f"it fails over packed rows: {' '.join(str(error).split())[:200]}") from error

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise


class _Nobody:
    """Receives the proof."""

    cancelled = False

    def token(self, token: Any) -> None:
        pass

    def done(self, output: Any) -> None:
        pass

    def fail(self, error: Any) -> None:
        pass
