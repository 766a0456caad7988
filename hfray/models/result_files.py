"""Which files of a folder that hfray made are the model, and which are the job's own. Knows names; opens no file."""

from __future__ import annotations

from collections.abc import Iterable

FACTS_FILE = "hfray.json"
"""What the model is and was made of (`models.result`); a folder that has it was made by hfray."""
_JOB_FILES = frozenset({"_SUCCESS", "spec.yaml", "report.json", "report.html", "errors.parquet", "tokens.json"})
_JOB_FOLDERS = frozenset({"_work", "data", "runs", "logs", "checkpoints"})
_CHECKPOINT = "checkpoint-"
"""What Transformers calls a folder of its own."""
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".npy", ".npz", ".joblib", ".ot")
"""Files that can run code when they are loaded, or that nobody loads."""

TOKENIZER_FILES = frozenset(
    {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
     "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json", "spiece.model", "source.spm",
     "target.spm", "sentencepiece.bpe.model", "tokenizer.model"}
)  # fmt: skip
LAST = ("config.json", "adapter_config.json", FACTS_FILE)
"""Without these a folder is no model, so they are the last to come and the first to go."""
CURVE_FILE = "training_curve.svg"
"""The picture of a training that its model card shows."""


def is_model_file(name: str) -> bool:
    """Whether a file of a result folder, by its path with "/", belongs to the model: not the job's report, manifest,
    logs, checkpoints, and nothing hidden."""
    parts = name.split("/")
    if any(part.startswith(".") for part in parts) or parts[0] in _JOB_FOLDERS or parts[0].startswith(_CHECKPOINT):
        return False
    return name not in _JOB_FILES


def model_files(names: Iterable[str]) -> tuple[str, ...]:
    """Those that belong to the model, in the order given."""
    return tuple(name for name in names if is_model_file(name))


def is_weights(name: str) -> bool:
    """Whether a file holds weights, or says how they are loaded."""
    if "/" in name:
        return False
    return name.endswith((".safetensors", ".safetensors.index.json")) or name == "adapter_config.json"


def is_licence(name: str) -> bool:
    """Whether a file at the top is a licence or a notice, which goes where the weights go."""
    return name.upper().startswith(("LICENSE", "LICENCE", "NOTICE"))


def is_shared_file(name: str) -> bool:
    """Whether a file goes to the hub: weights, configurations, tokenizers, model card, licence; nothing pickled, and
    nothing that somebody has laid beside them."""
    if not is_model_file(name) or name.endswith(PICKLED):
        return False
    folder, _, file = name.rpartition("/")
    if folder:  # of sentence-transformers: 1_Pooling/config.json
        return "/" not in folder and folder[0].isdigit() and file.endswith((".json", ".safetensors"))
    known = is_weights(name) or is_licence(name) or name in TOKENIZER_FILES or name == CURVE_FILE or name == "README.md"
    return known or name.endswith((".json", ".jinja"))
