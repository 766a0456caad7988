"""The examples that a training job learns: a tokenised folder, its own or one that the tokenize job makes of the rows.
Knows jobs and folders; not what is learned of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from hfray.data.ledger import Ledger
from hfray.data.tokens import Tokens
from hfray.kinds.train_check import CheckedTraining
from hfray.spec.sections import InputSpec
from hfray.spec.tokenize import TokenizeJob, TokenizerSpec, TokensSpec
from hfray.spec.train import TrainJob
from hfray.tasks.features import MODES

TOKENS_FOLDER = "_work/tokens"


@dataclass(frozen=True, slots=True)
class Tokenised:
    """Examples of one part of the input. rows: what they were made of, where that is known."""

    path: str
    split: str
    tokens: Tokens
    rows: InputSpec | None


def given_tokens(part: str, spec: InputSpec, tokens: Tokens) -> Tokenised:
    """The split of a tokenised folder that is meant by an input."""
    names = [split.name for split in tokens.splits]
    wanted = spec.split or (part if part in names or len(names) > 1 else names[0])
    return Tokenised(spec.path[0], wanted, tokens, None)


def tokenize_job(
    checked: CheckedTraining, part: str, spec: InputSpec, labels: Sequence[str] | None = None
) -> TokenizeJob:
    """The job that makes examples of one part of the input, below the training job's own output. labels: names of the
    classes in the order of their indexes, where another part has settled them."""
    job = checked.job
    mode: Any = job.mode.model_dump() if job.mode is not None else _mode_of(job)
    if labels and mode.get("labels", "auto") == "auto":
        mode["labels"] = tuple(labels)
    folder = Ledger(job.output.path, "parquet", "").storage.url(f"{TOKENS_FOLDER}/{part}")
    return TokenizeJob(
        name=job.name,
        model=TokenizerSpec(path=checked.tokenizer_source.name, revision=checked.tokenizer_source.revision),
        task=job.task.name,
        mode=mode,
        max_length=checked.max_length,
        input=spec,
        output=TokensSpec(path=folder),
        workers=job.workers.model_copy(update={"min": 1, "max": None, "gpus": 0.0, "cpus": 1.0}),
        max_error_rate=job.max_error_rate,
        seed=job.seed,
    )


def _mode_of(job: TrainJob) -> dict[str, Any]:
    """The task's own mode; what the task's options say of inputs (a prefix, languages) holds for examples too."""
    name = job.features_mode
    shared = (job.task.model_fields_set & MODES[name].Options.model_fields.keys()) - {"name"}
    return {"name": name} | {key: getattr(job.task, key) for key in sorted(shared)}


def largest_label(splits: Iterable[Tokenised]) -> int:
    """Of classes that have numbers only, over splits whose examples have some; told by the parts' footers."""
    from hfray.training.blocks import open_part
    from hfray.training.tokens import TokenExamples

    largest = 0
    for split in splits:
        examples = TokenExamples(split.path, split.split, columns=["labels"])
        storage = Ledger(split.path, "parquet", "").storage
        for part in examples.parts:
            with closing(open_part(storage, part, ("labels",))) as reader:
                largest = max(largest, reader.largest("labels"))
    return largest
