"""What is left of a job to be read, as one value: `report.json`. Knows plain numbers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError, computed_field, model_validator
from rich.console import Console

from hfray.errors import DataError
from hfray.inference.totals import Totals
from hfray.kinds.corpus import Corpus, Vocabulary
from hfray.kinds.summary import print_summary
from hfray.training.facts import TrainingFacts
from hfray.types import Number, Strict, Word

Status = Literal["complete", "failed", "interrupted"]


class ModelFacts(Strict):
    """The model as it was loaded."""

    path: Word
    revision: Word | None = None
    """The commit of a hub model; None for a folder."""
    architecture: Word | None = None
    parameters: int | None = None
    dtype: str | None = None
    quantization: str = "none"
    adapter: Word | None = None
    bytes_before: int | None = None
    """Memory footprint of the weights as they are stored."""
    bytes_after: int | None = None
    """Memory footprint of the weights as they were used, quantised or cast."""
    device: str | None = None


class Session(Strict):
    """One run of the command; a job that was resumed has several."""

    started_at: float
    """Unix time."""
    wall_s: float
    rows: int
    """Computed in this session; of a training run its steps."""
    failed: int = 0
    shards: int = 0
    workers: int = 0
    status: Status = "complete"


class FileFailure(Strict):
    """An input file that could not be read; its rows are missing from the output."""

    path: Word
    message: Word


class Report(Strict):
    """Everything that `report.json` holds. Rates and waste follow from the counts and are written beside them."""

    name: Word
    kind: str
    task: str | None = None
    status: Status = "complete"
    message: Word = ""
    """Why the job is not complete."""
    model: ModelFacts | None = None
    rows: int = 0
    """In the output, resumed and failed ones included."""
    failed: int = 0
    error_types: dict[Word, int] = Field(default_factory=dict)
    """Failed rows by type."""
    file_failures: tuple[FileFailure, ...] = ()
    shards: int = 0
    resumed_rows: int = 0
    resumed_shards: int = 0
    """Found in the output, not computed in this session."""
    tokens: int = 0
    """Model positions, padding apart."""
    padded_tokens: int = 0
    """Model positions computed, padding included."""
    generated_tokens: int = 0
    computed_tokens: int = 0
    """`tokens` of this session's own rows."""
    truncated: int = 0
    """Rows whose model input was cut, its text being longer than max_length or max_chars; of this session's own."""
    size_bytes: int = 0
    """Of all parts."""
    started_at: float = 0.0
    """Unix time of this session."""
    wall_s: float = 0.0
    """This session, from the command's start to its end."""
    scoring_s: float = 0.0
    """This session, from the first shard's start to the last one's commit."""
    busy_s: float = 0.0
    """In which a model worked, over all workers of this session."""
    workers: int = 0
    metrics: dict[Word, Number] = Field(default_factory=dict)
    corpus: Corpus | None = None
    """Of a tokenize job."""
    vocabulary: Vocabulary | None = None
    """Of a job that trained a tokenizer."""
    training: TrainingFacts | None = None
    """Of a training run."""
    lengths: tuple[int, ...] = ()
    """Items by token count, in the bins of `inference.receipt.LENGTH_BINS`."""
    scores: tuple[int, ...] = ()
    """Results by score, in equal bins over 0..1."""
    labels: dict[Word, int] = Field(default_factory=dict)
    """Results by label; "" counts those not counted apart."""
    throughput: tuple[tuple[float, float, float], ...] = ()
    """(seconds, rows per second, tokens per second) over this session."""
    sessions: tuple[Session, ...] = ()
    """Oldest first, this one last."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of hfray, ray, torch, transformers, python."""
    output: Word = ""
    job: Word = ""
    """The job file, as the command named it."""
    log: Word = ""
    fingerprint: str = ""
    spec: Word = ""
    """The resolved spec as YAML."""

    @classmethod
    def of(cls, totals: Totals, *, earlier: Sequence[Session] = (), first_step: int = 0, **facts: Any) -> Report:
        """The counted fields from `totals`, those of a training run from `training`, the others as given; this run is
        added to the `earlier` sessions. first_step: that this session of a training run went on from."""
        counted: dict[str, Any] = {
            "rows": totals.rows,
            "failed": totals.failed,
            "error_types": totals.error_types,
            "shards": totals.shards,
            "resumed_rows": totals.adopted_rows,
            "resumed_shards": totals.adopted_shards,
            "tokens": totals.tokens,
            "padded_tokens": totals.padded_tokens,
            "generated_tokens": totals.generated_tokens,
            "computed_tokens": totals.computed_tokens,
            "truncated": totals.truncated,
            "size_bytes": totals.size_bytes,
            "scoring_s": totals.throughput.span_s,
            "busy_s": totals.busy_s,
            "workers": len(totals.workers),
            "lengths": tuple(totals.lengths) if any(totals.lengths) else (),
            "scores": tuple(totals.scores) if any(totals.scores) else (),
            "labels": totals.labels,
            "throughput": totals.throughput.points(),
        }
        training: TrainingFacts | None = facts.get("training")
        if training is not None:
            counted |= {
                "tokens": training.tokens,
                "padded_tokens": training.points[-1].padded_tokens if training.points else 0,
                "workers": training.world_sizes[-1] if training.world_sizes else 0,
            }
        report = cls(**(counted | facts))
        this = Session(
            started_at=report.started_at,
            wall_s=report.wall_s,
            rows=totals.computed_rows if training is None else max(0, training.step - first_step),
            failed=totals.computed_failed,
            shards=totals.shards - totals.adopted_shards,
            workers=report.workers,
            status=report.status,
        )
        return report.model_copy(update={"sessions": (*earlier, this)})

    @computed_field  # type: ignore[prop-decorator]
    @property
    def padding_waste(self) -> float:
        """Share of the computed positions that were padding."""
        return max(0.0, 1 - self.tokens / self.padded_tokens) if self.padded_tokens else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def rows_per_s(self) -> float:
        """This session's own rows (of a tokenised corpus its documents) over `scoring_s`; of a training run the
        examples of all sessions over the time of training."""
        if self.training is not None:
            return self.training.samples_per_s
        if self.corpus is not None:
            return self._rate(self.corpus.documents if self.computed_tokens >= self.tokens else 0)
        if self.vocabulary is not None:
            return self.vocabulary.num_texts / self.vocabulary.learned_s if self.vocabulary.learned_s else 0.0
        return self._rate(self.rows - self.resumed_rows)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tokens_per_s(self) -> float:
        """This session's own tokens over `scoring_s`; of a training run those of all sessions, as above."""
        if self.training is not None:
            return self.training.tokens_per_s
        return self._rate(self.computed_tokens)

    @property
    def activity(self) -> str:
        """What its workers did, in a word."""
        return {"score": "scoring", "train": "training"}.get(self.kind, "tokenising")

    @property
    def busy_share(self) -> float:
        """Of the workers' time while scoring, the share in which their models worked."""
        available_s = self.scoring_s * self.workers
        return min(1.0, self.busy_s / available_s) if available_s else 0.0

    def _rate(self, amount: int) -> float:
        seconds = self.scoring_s or self.wall_s
        return amount / seconds if seconds else 0.0

    @model_validator(mode="before")
    @classmethod
    def _without_computed(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {key: value for key, value in data.items() if key not in cls.model_computed_fields}

    def to_json(self) -> str:
        """Indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """Raises DataError for anything that is not a report."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DataError(f"not a report of a job: {f'{where}: ' if where else ''}{first['msg']}") from None

    def summary(self, console: Console) -> None:
        """Prints the table at the end of a run."""
        print_summary(self, console)
