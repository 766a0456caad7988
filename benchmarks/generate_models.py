"""Models and requests of the generation benchmarks: random Llamas, lengths of the Azure trace."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import LlamaConfig

from benchmarks.measure import ROOT
from hfray.models.load import pick_dtype
from hfray.types import Generated, GenerationParams, Item

TRACE = ROOT.parent / "shared" / "data" / "azure_llm_trace" / "AzureLLMInferenceTrace_conv.csv"
SHAPES = {
    "28 M": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6, "num_attention_heads": 8},
    "160 M": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 10, "num_attention_heads": 16},
}
DTYPE = pick_dtype("auto", torch.device("cpu"))
"""What hfray computes in here: an emulated bfloat16 is no measure of anything."""
DTYPE_NAME = str(DTYPE).removeprefix("torch.")
VOCABULARY = 16_000
SCALE = 8
LONGEST = 512
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
Request = tuple[list[int], int]


def llama(shape: str, dtype: torch.dtype) -> Any:
    """Random weights; no end-of-sequence token, so that lengths are the trace's."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[shape], vocab_size=VOCABULARY, max_position_embeddings=4096, tie_word_embeddings=True,
        pad_token_id=0, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).to(dtype).eval()


def save(shape: str, path: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A random Llama whose words are its tokens, made once."""
    if path.exists():
        return path
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", chat_template=TEMPLATE)
    tokenizer.save_pretrained(path)
    llama(shape, dtype).save_pretrained(path)
    return path


def in_four_bits(shape: str, folder: Path) -> Any:
    """The same weights in NF4, as hfray loads them: products in the precision that is best here."""
    from hfray.models.load import load_model
    from hfray.spec.sections import ModelSpec
    from hfray.tasks import TASKS

    path = save(shape, folder / shape.replace(" ", ""))
    return load_model(ModelSpec(path=str(path), quantization="nf4"), TASKS["text-generation"]).model


def requests(count: int, *, skip: int = 0) -> list[Request]:
    """(prompt, number of new tokens) of consecutive lines of the trace."""
    generator = np.random.default_rng(skip)
    found: list[Request] = []
    with TRACE.open() as file:
        for line in list(csv.DictReader(file))[skip : skip + count]:
            length = min(LONGEST, max(4, int(line["ContextTokens"]) // SCALE))
            new = min(LONGEST, max(2, int(line["GeneratedTokens"]) // SCALE))
            found.append((generator.integers(1, VOCABULARY, length).tolist(), new))
    return found


def tokens_of(seed: int, length: int) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(1, VOCABULARY, length).tolist()
    return tokens


def item_of(request: Request) -> Item:
    prompt, new = request
    return Item("causal", {"input_ids": np.array(prompt)}, Generated(), GenerationParams(max_new_tokens=new))
