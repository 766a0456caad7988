"""What a tokenizer is trained to be: algorithm, size, special tokens, chat template. Knows names and texts; trains
nothing (`models.vocabulary` does), and no library of tokenizers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from hfray.tasks.features.base import FeatureOptions

Algorithm = Literal["byte-bpe", "bpe", "wordpiece", "unigram"]
Role = Literal["pad", "unk", "cls", "sep", "mask", "bos", "eos"]

ROLES: tuple[Role, ...] = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")
"""In the order of their ids, which start at 0."""

DEFAULT_TOKENS: dict[str, dict[Role, str]] = {
    "byte-bpe": {"pad": "<|pad|>", "bos": "<|endoftext|>", "eos": "<|endoftext|>"},
    "bpe": {"pad": "<pad>", "unk": "<unk>", "bos": "<s>", "eos": "</s>"},
    "wordpiece": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    "unigram": {"pad": "<pad>", "unk": "<unk>", "bos": "<s>", "eos": "</s>"},
}
"""Byte-level BPE pads with a token of its own: a loss that leaves out padding would otherwise never see an end."""

CHATML_MARKERS = ("<|im_start|>", "<|im_end|>")
CHAT_TEMPLATES = {
    "chatml": (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\\n' }}"
        "{% if message['role'] == 'assistant' %}"
        "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
        "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
}
"""By name. `generation` marks what the assistant says, for a loss over that alone
(https://huggingface.co/docs/transformers/chat_templating_writing)."""

DEFAULT_COVERAGE = 0.99995
DEFAULT_MIN_FREQUENCY = 2
NUM_BYTES = 256


class TokenizerOptions(FeatureOptions):
    """Trains a tokenizer on the texts of all rows."""

    name: Literal["tokenizer"] = "tokenizer"
    """Which mode."""
    algorithm: Algorithm = "byte-bpe"
    """byte-bpe (GPT-2, Llama 3): any text, byte for byte; bpe: characters, begins with bos (Llama 2 without its bytes);
    wordpiece (BERT): [CLS] ... [SEP]; unigram (T5): ends with eos. All but byte-bpe make one space of white space."""
    vocab_size: int = Field(default=32_000, ge=8, le=2**24)
    """Most tokens, special ones included; a small corpus may give fewer."""
    min_frequency: int | None = Field(default=None, ge=1)
    """How often a pair of tokens must occur to become one; default: 2. Not for unigram."""
    character_coverage: float | None = Field(default=None, gt=0, le=1)
    """The share of all characters that the alphabet covers; the rarest become the unknown token. Default: 0.99995. Not
    for byte-bpe, which knows all bytes."""
    special_tokens: dict[Role, str | None] = Field(default_factory=dict)
    """Tokens by role, over the algorithm's own, such as `{eos: <|end|>}`; null takes one away."""
    extra_special_tokens: tuple[str, ...] = ()
    """Further tokens that are never split, such as the marks of a chat template."""
    lowercase: bool = False
    """Makes text lower-case; wordpiece takes accents off too, as BERT does."""
    chat_template: str | None = None
    """A Jinja template, or `chatml`, which brings its marks along."""
    max_length: int | None = Field(default=None, ge=1)
    """Most tokens of one input, which the tokenizer states as `model_max_length`; default: no limit."""

    @property
    def tokens(self) -> dict[Role, str]:
        """Special tokens by role, in the order of their ids; two roles may share one."""
        merged = {**DEFAULT_TOKENS[self.algorithm], **self.special_tokens}
        return {role: token for role in ROLES if (token := merged.get(role)) is not None}

    @property
    def all_special_tokens(self) -> tuple[str, ...]:
        """Those with a role, then the others, each once: ids 0, 1, 2, ..."""
        marks = CHATML_MARKERS if self.chat_template == "chatml" else ()
        return tuple(dict.fromkeys([*self.tokens.values(), *marks, *self.extra_special_tokens]))

    @property
    def template(self) -> str | None:
        """The text of the chat template."""
        return None if self.chat_template is None else CHAT_TEMPLATES.get(self.chat_template, self.chat_template)

    @field_validator("chat_template")
    @classmethod
    def _check_template(cls, template: str | None) -> str | None:
        if template is not None and template not in CHAT_TEMPLATES and "{" not in template:
            known = ", ".join(CHAT_TEMPLATES)
            raise ValueError(f"is neither a Jinja template nor the name of one; known: {known}")
        return template

    @field_validator("extra_special_tokens")
    @classmethod
    def _check_extra(cls, tokens: tuple[str, ...]) -> tuple[str, ...]:
        _check_texts(tokens)
        twice = sorted({token for token in tokens if tokens.count(token) > 1})
        if twice:
            raise ValueError(f"names {twice[0]!r} twice")
        return tokens

    @field_validator("special_tokens")
    @classmethod
    def _check_special(cls, tokens: dict[Role, str | None]) -> dict[Role, str | None]:
        _check_texts([token for token in tokens.values() if token is not None])
        return tokens

    @model_validator(mode="after")
    def _check_algorithm(self) -> TokenizerOptions:
        if self.algorithm == "unigram" and self.min_frequency is not None:
            raise ValueError("min_frequency is not for algorithm unigram, which merges no pairs; remove it")
        if self.algorithm == "byte-bpe" and self.character_coverage is not None:
            raise ValueError("character_coverage is not for algorithm byte-bpe, which knows all bytes; remove it")
        if self.algorithm != "byte-bpe" and "unk" not in self.tokens:
            raise ValueError(f"special_tokens: algorithm {self.algorithm} needs the role unk for unknown characters")
        least = len(self.all_special_tokens) + (NUM_BYTES if self.algorithm == "byte-bpe" else 1)
        if self.vocab_size < least:
            raise ValueError(
                f"vocab_size: {self.vocab_size} is too small; {self.algorithm} with these special tokens needs at "
                f"least {least}"
            )
        return self


def _check_texts(tokens: tuple[str, ...] | list[str]) -> None:
    for token in tokens:
        if not token.strip() or token != token.strip():
            raise ValueError(f"{token!r}: a special token is text without spaces around it")
        if any(0xD800 <= ord(char) < 0xE000 for char in token):
            raise ValueError(f"{token!r} is not valid Unicode")
