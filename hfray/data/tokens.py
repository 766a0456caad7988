"""A tokenised folder as its readers find it: `tokens.json`, what training must agree on. Knows one small file.

tokens.json  tokenizer/  data/train/...  data/validation/...  errors.parquet  report.json  _SUCCESS
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field, ValidationError

from hfray.data.ledger import SUCCESS
from hfray.data.storage import Storage
from hfray.errors import DataError, SpecError
from hfray.models.tokenizers import TokenizerFacts
from hfray.types import Strict

TOKENS_FILE = "tokens.json"
TOKENIZER_FOLDER = "tokenizer"


class TokenSplit(Strict):
    """One split. tokens: padding apart."""

    name: str
    parts: int
    examples: int
    tokens: int


class Tokens(Strict):
    """What a tokenised folder says of itself."""

    version: Literal[1] = 1
    fingerprint: str
    """Of the job that made it."""
    source: str
    """Fingerprint of the rows it was made of."""
    tokenizer: TokenizerFacts
    mode: str
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the mode."""
    task: str | None
    max_length: int | None
    """Most tokens of an example; of a packed one, their exact number."""
    packed: bool
    labels: tuple[str, ...] = ()
    """Names of the classes in the column `labels`, by index; empty where it holds none, or indexes without names."""
    columns: dict[str, str]
    """Of the parts, with their Arrow types."""
    splits: tuple[TokenSplit, ...]


def is_tokenised(path: str) -> bool:
    """Whether a tokenize job has made the folder, or is about to."""
    return Storage(path).exists(TOKENS_FILE)


def read_tokens(path: str) -> Tokens:
    """Of a finished folder. Raises SpecError when it is none, DataError when it is damaged."""
    storage = Storage(path)
    if not storage.exists(TOKENS_FILE):
        hint = f": did you mean {path}/..?" if PurePosixPath(path).name == "data" else ""
        raise SpecError(f"{path}: no tokenised folder, there is no {TOKENS_FILE}{hint}")
    if not storage.exists(SUCCESS):
        raise SpecError(f"{path}: is not complete: run its job again, it goes on where it stopped")
    try:
        return Tokens.model_validate_json(storage.read_bytes(TOKENS_FILE))
    except ValidationError as error:
        raise DataError(f"{path}/{TOKENS_FILE}: is damaged ({error.errors()[0]['msg']}): tokenise again") from None
