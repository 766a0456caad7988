"""One static batch of prompts, padded, through a model's `generate`. Knows tensors and tokens; not text, not queues.

Every setting comes from the items. Of the model's own generation settings only those count that belong to its
vocabulary: start, padding and begin tokens, a forced end, tokens it must not produce. How the next token is drawn:
`sampling`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.generation import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from hfray.engines.base import score_arrays
from hfray.engines.sampling import GumbelNoise, Scores, constraints, warpers
from hfray.models.adapter import body_of
from hfray.types import GenerationParams, Item, Output, StopMatcher


def generation_key(params: GenerationParams) -> Hashable:
    """Equal for items that may share a batch: everything but the seed and the stop strings."""
    return replace(params, seed=0, stop=None)


def cost_tokens(item: Item) -> int:
    """Positions that an item may occupy: prompt plus new tokens, once per beam."""
    params = _params(item)
    return (item.num_tokens + params.max_new_tokens) * params.num_beams


def generate_batch(
    model: Any, items: Sequence[Item], device: Any, on_step: Callable[[], None] = lambda: None
) -> list[Output]:
    """One output per item, in order: see `types.Generated`. on_step: called after each token of the batch.

    The items are of one kind and of one `generation_key`. "stop": an end-of-sequence token (kept in `tokens`) or a
    stop string ended the text. Raises ValueError for a mixed batch, and what the model raises.
    """
    if not items:
        return []
    params = _params(items[0])
    if len({(item.kind, generation_key(_params(item))) for item in items}) > 1:
        raise ValueError("a batch must hold one kind and one generation_key")
    config = _config(model, params)
    causal = items[0].kind == "causal"
    ids, mask = _pad(items, config.pad_token_id, left=causal)
    ids, mask = ids.to(device), mask.to(device)
    start = ids.shape[1] if causal else 1  # a decoder begins with its start token
    matchers = [_params(item).stop for item in items]
    stopping = _StopStrings(matchers, start, num_beams=params.num_beams) if any(matchers) else None
    scores = None if params.logprobs is None else Scores(params.logprobs)
    with _generation_config(model, config) as own:
        generated = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList(
                [*([] if scores is None else [scores]), *_processors(own, items, params, ids, mask, start)]
            ),
            stopping_criteria=StoppingCriteriaList([*([stopping] if stopping else []), _Steps(on_step)]),
        )
    told = None if scores is None else scores.finish(generated.sequences[:, -1])
    sequences = generated.sequences[:, start:].cpu().numpy()
    beams = None if params.num_beams == 1 else (generated.beam_indices >= 0).sum(dim=1).tolist()
    outputs: list[Output] = []
    for row, sequence in enumerate(sequences):
        ends = np.isin(sequence, params.eos_token_ids)
        length = int(ends.argmax()) + 1 if ends.any() else len(sequence)
        if beams is not None:
            length = beams[row]
        elif stopping is not None:
            length = min(length, stopping.lengths.get(row, length))
        tokens = sequence[:length].astype(np.int64)
        matcher = matchers[row]
        ended = length > 0 and (bool(ends[length - 1]) or (matcher is not None and matcher(tokens.tolist())))
        output: Output = {"tokens": tokens, "finish": "stop" if ended else "length"}
        if told is not None:
            output |= score_arrays(told[row][:length], params.logprobs or 0)
        outputs.append(output)
    return outputs


class _Steps(StoppingCriteria):  # type: ignore[misc]
    """Ends nothing; tells of each step."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        self._on_step = on_step

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self._on_step()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class _StopStrings(StoppingCriteria):  # type: ignore[misc]
    """Ends a row when its matcher says so, and remembers how many new tokens it had then.

    Beam search asks about candidates, several per item in order; nothing is remembered of them.
    """

    def __init__(self, matchers: Sequence[StopMatcher | None], start: int, *, num_beams: int) -> None:
        self.lengths: dict[int, int] = {}
        self._matchers = matchers
        self._start = start
        self._beams = num_beams > 1

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        per_item = input_ids.shape[0] // len(self._matchers)
        done = [row in self.lengths for row in range(input_ids.shape[0])]
        tokens = input_ids[:, self._start :].tolist()
        for row, new_tokens in enumerate(tokens):
            matcher = self._matchers[row // per_item]
            if not done[row] and matcher is not None and matcher(new_tokens):
                done[row] = True
                if not self._beams:
                    self.lengths[row] = len(new_tokens)
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)


def _params(item: Item) -> GenerationParams:
    if item.generation is None:
        raise ValueError(f"an item of kind {item.kind} needs generation parameters")
    return item.generation


def _pad(items: Sequence[Item], pad_token_id: int, *, left: bool) -> tuple[Any, Any]:
    """Ids and attention mask, both int64 [items, longest]."""
    longest = max(item.num_tokens for item in items)
    ids = np.full((len(items), longest), pad_token_id, dtype=np.int64)
    mask = np.zeros((len(items), longest), dtype=np.int64)
    for row, item in enumerate(items):
        place = slice(longest - item.num_tokens, longest) if left else slice(0, item.num_tokens)
        ids[row, place] = item.inputs["input_ids"]
        mask[row, place] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _config(model: Any, params: GenerationParams) -> GenerationConfig:
    own = model.generation_config
    eos = list(params.eos_token_ids)
    pad = own.pad_token_id if own.pad_token_id is not None else (eos[0] if eos else 0)
    settings: dict[str, Any] = {}
    if params.num_beams > 1:
        settings.update(length_penalty=params.length_penalty, early_stopping=params.early_stopping)
    return GenerationConfig(
        max_new_tokens=params.max_new_tokens,
        num_beams=params.num_beams,
        do_sample=False,
        use_cache=True,
        return_dict_in_generate=True,
        eos_token_id=eos or None,
        pad_token_id=pad,
        bos_token_id=own.bos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
        **settings,
    )


@contextmanager
def _generation_config(model: Any, config: GenerationConfig) -> Iterator[GenerationConfig]:
    """Puts `config` in place of the model's own settings, which `generate` would fill all gaps from; yields those."""
    holder = body_of(model)
    own = holder.generation_config
    holder.generation_config = config
    try:
        yield own
    finally:
        holder.generation_config = own


def _processors(
    own: GenerationConfig, items: Sequence[Item], params: GenerationParams, ids: Any, mask: Any, start: int
) -> LogitsProcessorList:
    """What `generate` itself would build, in its order, and the noise."""
    device = ids.device
    causal = items[0].kind == "causal"
    num_padding = (mask == 0).sum(dim=1).repeat_interleave(params.num_beams) if causal else None
    processors = LogitsProcessorList(
        constraints(own, params, start, device, num_padding=num_padding, encoder_ids=None if causal else ids)
    )
    if params.temperature > 0:
        processors.extend([*warpers(params), GumbelNoise([_params(item).seed for item in items], device)])
    return processors
