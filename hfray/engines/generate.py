"""One static batch of prompts, padded, through a model's `generate`. Knows tensors and tokens; not text, not queues.

Every setting comes from the items. Of the model's own generation settings only those count that belong to its
vocabulary: start, padding and begin tokens, a forced end, tokens it must not produce. How the next token is drawn:
`sampling`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.generation import LogitsProcessorList, StoppingCriteriaList
from transformers.modeling_outputs import BaseModelOutput

from hfray.engines.base import Finish, TokenScores, score_arrays
from hfray.engines.sampling import GumbelNoise, Scores, constraints, warpers
from hfray.engines.stopping import Steps, Stopping
from hfray.models.adapter import body_of
from hfray.types import GenerationParams, Item, Output


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
    stop string ended the text. Texts of an encoder-decoder leave the batch when they have ended, a few at a time.
    Raises ValueError for a mixed batch, and what the model raises.
    """
    if not items:
        return []
    params = _params(items[0])
    if len({(item.kind, generation_key(_params(item))) for item in items}) > 1:
        raise ValueError("a batch must hold one kind and one generation_key")
    causal = items[0].kind == "causal"
    texts = [_Text(_params(item)) for item in items]
    ids, mask = _pad(items, _config(model, params).pad_token_id, left=causal)
    batch = _Batch(texts, ids.to(device), mask.to(device), causal=causal)
    noise = None if params.temperature == 0 else GumbelNoise([text.params.seed for text in texts], device)
    leave = not causal and params.num_beams == 1
    if leave:
        encoder = body_of(model).get_encoder()
        batch.encoded = encoder(input_ids=batch.ids, attention_mask=batch.mask, return_dict=True).last_hidden_state
    while batch.texts:
        generated = _grow(model, batch, noise, on_step, leave=leave)
        rows = [row for row, text in enumerate(batch.texts) if text.finish is None]
        if rows:
            batch = batch.of(rows, generated)
            if noise is not None:
                noise.keep(rows)
        else:
            break
    return [text.output() for text in texts]


@dataclass(slots=True)
class _Text:
    """What an item's text has come to."""

    params: GenerationParams
    tokens: list[int] = field(default_factory=list)
    scores: list[TokenScores] = field(default_factory=list)
    finish: Finish | None = None

    def take(self, tokens: list[int], scores: list[TokenScores] | None, *, stopped: bool, whole: bool) -> None:
        """stopped: a stop string is complete. whole: nothing comes after it, whatever its length."""
        self.tokens += tokens
        if scores is not None:
            self.scores += scores[: len(tokens)]
        if stopped or (bool(tokens) and tokens[-1] in self.params.eos_token_ids):
            self.finish = "stop"
        elif whole or len(self.tokens) >= self.params.max_new_tokens:
            self.finish = "length"

    def output(self) -> Output:
        output: Output = {"tokens": np.array(self.tokens, dtype=np.int64), "finish": self.finish or "length"}
        if self.params.logprobs is not None:
            output |= score_arrays(self.scores, self.params.logprobs)
        return output


@dataclass(slots=True)
class _Batch:
    """The texts that grow together, and what the model needs to know of them."""

    texts: list[_Text]
    ids: Any
    """int64 [texts, longest]: prompts, or inputs of the encoder."""
    mask: Any
    causal: bool
    encoded: Any = None
    """[texts, longest, width]: the encoder's output."""
    so_far: Any = None
    """int64 [texts, tokens], with the decoder's start token."""
    cache: Any = None

    @property
    def start(self) -> int:
        """Tokens before the first new one; a decoder begins with its start token."""
        return int(self.ids.shape[1]) if self.causal else 1

    def of(self, rows: list[int], generated: Any) -> _Batch:
        """Some of the texts, after a `generate` of all of them."""
        index = torch.tensor(rows, device=self.ids.device)
        cache = generated.past_key_values
        if hasattr(cache, "batch_select_indices"):
            cache.batch_select_indices(index)
        else:  # it computes the texts so far again
            cache = None
        texts = [self.texts[row] for row in rows]
        encoded, so_far = self.encoded[index], generated.sequences[index]
        return _Batch(texts, self.ids[index], self.mask[index], self.causal, encoded, so_far, cache)

    def inputs(self) -> dict[str, Any]:
        """For `generate`."""
        if self.encoded is None:
            return {"input_ids": self.ids, "attention_mask": self.mask}
        found = {"encoder_outputs": BaseModelOutput(self.encoded), "attention_mask": self.mask}
        if self.so_far is not None:
            # The mask says that these are not new tokens alone, and all but the last are in the cache.
            known = torch.ones_like(self.so_far)
            found |= {"decoder_input_ids": self.so_far, "decoder_attention_mask": known, "past_key_values": self.cache}
        return found


def _grow(model: Any, batch: _Batch, noise: GumbelNoise | None, on_step: Callable[[], None], *, leave: bool) -> Any:
    """What `generate` gives; the texts have their new tokens. leave: whether to come back when some have ended."""
    texts = batch.texts
    params = texts[0].params
    config = _config(model, params)
    num_before = len(texts[0].tokens)
    config.max_new_tokens = params.max_new_tokens - num_before
    stopping = Stopping([text.params for text in texts], batch.start, num_before=num_before, leave=leave)
    scores = None if params.logprobs is None else Scores(params.logprobs)
    with _generation_config(model, config) as own:
        generated = model.generate(
            **batch.inputs(),
            generation_config=config,
            logits_processor=LogitsProcessorList(
                [*([] if scores is None else [scores]), *_processors(own, batch, params, noise)]
            ),
            stopping_criteria=StoppingCriteriaList([stopping, Steps(on_step)]),
        )
    told = None if scores is None else scores.finish(generated.sequences[:, -1])
    beams = None if params.num_beams == 1 else (generated.beam_indices >= 0).sum(dim=1).tolist()
    for row, sequence in enumerate(generated.sequences[:, batch.start + num_before :].cpu().numpy()):
        ends = np.isin(sequence, params.eos_token_ids)
        length = int(ends.argmax()) + 1 if ends.any() else len(sequence)
        length = beams[row] if beams is not None else min(length, stopping.lengths.get(row, length))
        tokens = sequence[:length].tolist()
        stop = texts[row].params.stop
        texts[row].take(
            tokens,
            None if told is None else told[row],
            stopped=row in stopping.lengths or (beams is not None and stop is not None and stop(tokens)),
            whole=not leave,
        )
    return generated


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
    own: GenerationConfig, batch: _Batch, params: GenerationParams, noise: GumbelNoise | None
) -> LogitsProcessorList:
    """What `generate` itself would build, in its order, and the noise."""
    device, causal = batch.ids.device, batch.causal
    num_padding = (batch.mask == 0).sum(dim=1).repeat_interleave(params.num_beams) if causal else None
    encoder_ids = None if causal else batch.ids
    processors = LogitsProcessorList(
        constraints(own, params, batch.start, device, num_padding=num_padding, encoder_ids=encoder_ids)
    )
    if noise is not None:
        processors.extend([*warpers(params), noise])
    return processors
