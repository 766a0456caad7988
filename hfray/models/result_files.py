"""Which files of a folder that hfray made are the model, and which are the job's own. Knows names; opens no file."""

from __future__ import annotations

from collections.abc import Iterable

FACTS_FILE = "hfray.json"
"""What the model is and was made of (`models.result`); a folder that has it was made by hfray."""
_JOB_FILES = frozenset(
    {"_SUCCESS", "spec.yaml", "report.json", "report.html", "errors.parquet", "tokens.json", "train.log"}
)
_JOB_FOLDERS = frozenset({"_work", "data", "runs", "logs", "checkpoints"})
_CHECKPOINT = "checkpoint-"
"""What Transformers calls a folder of its own."""
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".npy", ".npz", ".joblib", ".ot")
"""Files that can run code when they are loaded, or that nobody loads."""


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
