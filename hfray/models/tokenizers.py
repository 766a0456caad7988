"""What tokens and the model that reads them must agree on: loading, saving and telling apart tokenizers. Knows
Transformers tokenizers; not tasks, not rows, and trains none (`models.vocabulary` does).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfray.errors import SpecError
from hfray.models.info import unusable
from hfray.models.source import ModelSource

_NO_LIMIT = 1_000_000  # tokenizers without a limit carry model_max_length = int(1e30)
_CONFIG_FILE = "tokenizer_config.json"
_LOCAL_KEYS = frozenset(
    {"name_or_path", "is_local", "local_files_only", "_commit_hash", "tokenizer_file", "special_tokens_map_file"}
)
"""What Transformers writes into the configuration of where a tokenizer happened to be loaded from."""
_IDLE_KEYS = _LOCAL_KEYS | {
    "backend", "chat_template", "clean_up_tokenization_spaces", "errors", "max_length", "model_max_length",
    "pad_to_multiple_of", "processor_class", "stride", "transformers_version", "truncation_side",
    "truncation_strategy",
}  # fmt: skip
"""What decides no id of a whole text: limits, padding, templates, decoding."""


def load_tokenizer(source: ModelSource) -> Any:
    """The tokenizer of a model, or of a folder or repository that holds nothing else. Raises SpecError if there is
    none, or it cannot be used without remote code."""
    from transformers import AutoTokenizer

    if not {"config.json", _CONFIG_FILE, "tokenizer.json"} & set(source.files):
        raise SpecError(
            f"model {source.name}: no file says which tokenizer it has; load it with its own class once and "
            "save_pretrained() it, which writes tokenizer.json"
        )
    try:
        with warnings.catch_warnings():
            # sacremoses only normalises punctuation, which the models' own published scores do without.
            warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
            tokenizer = AutoTokenizer.from_pretrained(
                source.path, revision=source.revision or "main", trust_remote_code=False
            )
    except Exception as error:  # whatever the tokenizer's own class raises for the files it finds
        raise unusable(source, "tokenizer", error) from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise SpecError(f"model {source.name}: it has no tokenizer files (tokenizer.json or the like)")
    return tokenizer


def save_tokenizer(tokenizer: Any) -> dict[str, bytes]:
    """The files that `save_pretrained` writes, by name with "/" between folders; enough for `AutoTokenizer`.

    The same for the same tokenizer, wherever it was loaded from and whatever it was called with. Not while another
    thread uses the tokenizer: its truncation and padding are off meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="hfray-tokenizer-") as folder, _neither_cut_nor_padded(tokenizer):
        tokenizer.save_pretrained(folder)
        root = Path(folder)
        files = {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}
    config = json.loads(files[_CONFIG_FILE])
    kept = {key: value for key, value in config.items() if key not in _LOCAL_KEYS}
    if not kept.get("additional_special_tokens"):
        kept.pop("additional_special_tokens", None)  # some classes write an empty list once they were loaded
    files[_CONFIG_FILE] = (json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    return dict(sorted(files.items()))


@contextmanager
def _neither_cut_nor_padded(tokenizer: Any) -> Iterator[None]:
    """A fast tokenizer keeps the truncation and padding of its last call, and would save them."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        yield
        return
    truncation, padding = backend.truncation, backend.padding
    backend.no_truncation()
    backend.no_padding()
    try:
        yield
    finally:
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)


def fingerprint(tokenizer: Any) -> str:
    """sha256 (hex) of what decides the ids of a text: equal for tokenizers that were saved and loaded again, other once
    a token, a merge, the normaliser, a special token or what is put around a text is another.

    Limits, padding, chat templates and decoding do not count. Reads only, so that other threads may use the tokenizer.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        parts = _slow_parts(tokenizer)
    else:
        parts = _set_options(json.loads(tokenizer.backend_tokenizer.to_str()))
        parts = {key: value for key, value in parts.items() if key not in ("truncation", "padding")}
    return _digest(
        {
            "tokenizer": parts,
            "special_tokens": {role: str(token) for role, token in tokenizer.special_tokens_map.items()},
            "model_input_names": list(tokenizer.model_input_names),
            "padding_side": tokenizer.padding_side,
            "split_special_tokens": bool(getattr(tokenizer, "split_special_tokens", False)),
        }
    )


def _set_options(backend: dict[str, Any]) -> dict[str, Any]:
    """Without the options that are null: a later version of the library writes new ones so until somebody sets them."""

    def without_null(value: Any) -> Any:
        if isinstance(value, list):
            return [without_null(each) for each in value]
        if isinstance(value, dict):
            return {key: without_null(each) for key, each in value.items() if each is not None}
        return value

    large = {key: backend["model"].pop(key) for key in ("vocab", "merges") if key in backend["model"]}
    return {**without_null(backend), "tokens": large}


def _slow_parts(tokenizer: Any) -> dict[str, Any]:
    """Of a tokenizer written in Python, whose class and files decide the ids."""
    files = save_tokenizer(tokenizer)
    config = json.loads(files.pop(_CONFIG_FILE))
    return {
        "class": type(tokenizer).__name__,
        "config": {key: value for key, value in config.items() if key not in _IDLE_KEYS and value is not None},
        "files": {
            name: hashlib.sha256(content).hexdigest() for name, content in files.items() if not name.endswith(".jinja")
        },
    }


def template_hash(tokenizer: Any) -> str | None:
    """sha256 (hex) of the chat template, of all of them by name where there are several; None without any."""
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        return None
    return hashlib.sha256(template.encode()).hexdigest() if isinstance(template, str) else _digest(template)


def _digest(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))  # ASCII: lone surrogates have an escape
    return hashlib.sha256(canonical.encode()).hexdigest()


def safe_max_length(tokenizer: Any) -> int | None:
    """Most tokens of one input that the tokenizer states, special ones included; None if it states no limit."""
    stated = getattr(tokenizer, "model_max_length", None)
    return int(stated) if isinstance(stated, int | float) and 0 < stated < _NO_LIMIT else None


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What is written beside tokens about the tokenizer that made them."""

    name: str
    fingerprint: str
    template: str | None
    """Of the chat template that the tokens were made with; None if they were made without."""
    vocab_size: int
    """Rows that an embedding needs: the largest id, plus one."""
    pad_token_id: int | None
    eos_token_id: int | None
    bos_token_id: int | None

    @classmethod
    def of(cls, tokenizer: Any, name: str, *, with_template: bool = False) -> TokenizerFacts:
        """with_template: whether the tokens depend on the chat template."""
        return cls(
            name=name,
            fingerprint=fingerprint(tokenizer),
            template=template_hash(tokenizer) if with_template else None,
            vocab_size=max(tokenizer.get_vocab().values(), default=-1) + 1,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id,
        )

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> TokenizerFacts:
        """Raises KeyError for a record that lacks a part; parts that a later version wrote are left out."""
        return cls(**{name: record[name] for name in cls.__slots__})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def check_same(self, tokenizer: Any, name: str) -> None:
        """Raises SpecError unless `tokenizer`, of the model called `name`, gives the ids that these tokens have."""
        other = TokenizerFacts.of(tokenizer, name, with_template=self.template is not None)
        if other.fingerprint != self.fingerprint:
            raise SpecError(
                f"the tokens were made by the tokenizer of {self.name} (fingerprint {self.fingerprint[:16]}, "
                f"{self.vocab_size:,} tokens), but {name} has another one (fingerprint {other.fingerprint[:16]}, "
                f"{other.vocab_size:,} tokens), to which the ids mean something else; choose a model with the same "
                "tokenizer, or run the tokenize job again with this model's"
            )
        if other.template != self.template:
            has = "has none" if other.template is None else f"has another one ({other.template[:16]})"
            raise SpecError(
                f"the tokens were made with the chat template of {self.name} ({str(self.template)[:16]}), but {name} "
                f"{has}, and would be asked in another form than it was trained in; give it the same chat template, or "
                "run the tokenize job again with this model's"
            )
