"""Floating-point operations that training a model takes for each position. Knows sizes and formulas; not devices.

A weight of a matrix product takes 2 operations in the forward pass, 2 for the gradient of its input and 2 for its own:
6 in all (Kaplan et al. 2020, arXiv:2001.08361, section 2.1). Attention's two products take 12 for each layer, unit of
its heads and position that is attended to (Chowdhery et al. 2022, arXiv:2204.02311, appendix B); all positions count,
also those that a causal mask hides. A frozen weight has no gradient of its own and takes 4, LoRA's matrices take 6.

As there, embeddings that are looked up, norms and activation functions are left out, and what activation checkpointing
computes again is no use. Beside a language model's logits, a head counts nothing; a pooler counts as if it worked at
each position (1 % more in BERT's base size). Below the first adapted layer no gradient is needed, which is not taken
off. Of a mixture of experts only what is a linear layer counts.
"""

from __future__ import annotations

from hfray.training.size import ModelSize

_TRAINED, _FROZEN = 6, 4
_ATTENTION = 12


def flops_per_token(size: ModelSize, mean_length: float, mean_target_length: float = 0.0) -> float:
    """Operations of learning one position, forward and backward, padding apart.

    mean_length: positions of an example (of a packed one: all of its row), as a mean over positions rather than over
    examples, since long examples hold more of them. mean_target_length: the same of an encoder-decoder's targets;
    its positions are those of sources and targets together. Each sees all of its own text, targets the source as well.
    """
    of_base = _FROZEN if size.added else _TRAINED
    per_linear = of_base + _TRAINED * size.adapter / size.linear if size.linear else 0.0
    decoder_linear, decoder_layers = size.linear - size.encoder_linear, size.num_layers - size.encoder_layers
    width = size.attention_size or size.hidden_size
    logits = of_base * size.vocab_size * size.hidden_size
    encoder = per_linear * size.encoder_linear + _ATTENTION * size.encoder_layers * width * mean_length
    if not size.encoder_layers:
        return float(per_linear * size.linear + logits + _ATTENTION * size.num_layers * width * mean_length)
    seen = mean_target_length + mean_length
    decoder = per_linear * decoder_linear + logits + _ATTENTION * decoder_layers * width * seen
    return float((mean_length * encoder + mean_target_length * decoder) / seen) if seen else 0.0
