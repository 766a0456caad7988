"""`kind: tokenize`: rows to token shards that training reads."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from hfray.spec.fields import NAME_PATTERN, misfit, named, operational
from hfray.spec.sections import InputSpec, WorkersSpec
from hfray.tasks import TASKS
from hfray.tasks.features import MODES
from hfray.tasks.features.base import FeatureOptions
from hfray.tasks.features.tokenizer_options import TokenizerOptions
from hfray.types import Strict

_MODES = {**{name: mode.Options for name, mode in MODES.items()}, "tokenizer": TokenizerOptions}
_TASKS = tuple(name for name, task in TASKS.items() if task.training_mode is not None)

if TYPE_CHECKING:
    AnyMode = FeatureOptions | TokenizerOptions
    TrainableTask = str
else:  # one member per mode, told apart by `name`
    AnyMode = Annotated[Annotated[reduce(or_, _MODES.values()), Field(discriminator="name")], BeforeValidator(named)]
    TrainableTask = Literal[_TASKS]


class TokenizerSpec(Strict):
    """Whose tokenizer."""

    path: str = Field(min_length=1)
    """A hub id, a folder, or `package:NAME/FOLDER`: of a model, or of a tokenizer alone."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; resolved to its commit once."""


class SplitSpec(Strict):
    """Shares of the rows by a hash of their content, equal on every machine: equal rows are in one split. The rest is
    `train`."""

    validation: float = Field(default=0.0, ge=0, lt=1)
    """Share of the rows for validation."""
    test: float = Field(default=0.0, ge=0, lt=1)
    """Share of the rows for testing."""
    seed: int = Field(default=0, ge=0)
    """Another seed gives another choice."""

    @model_validator(mode="after")
    def _check_shares(self) -> SplitSpec:
        if self.validation + self.test >= 1:
            raise misfit("validation", f"{self.validation:g} and test {self.test:g} leave nothing for train")
        if not self.validation + self.test:
            raise misfit("validation", "say a share above 0 for validation or test, or remove this section")
        return self


class TokensSpec(Strict):
    """Where the token shards go."""

    path: str = operational(..., min_length=1)
    """A folder, local or on s3://, gs://, az://; one job each."""
    format: Literal["parquet", "datasets"] = "parquet"
    """Of the parts: Parquet for anyone, or the Arrow files of `datasets.load_from_disk`."""


class TokenizeJob(Strict):
    """Turns every row of the input into token shards."""

    kind: Literal["tokenize"] = "tokenize"
    """What the job does."""
    name: str = operational(..., pattern=NAME_PATTERN)
    """Names reports and logs: lower-case letters, digits, `.`, `_`, `-`."""
    model: TokenizerSpec | None = None
    """Whose tokenizer; not for mode tokenizer, which trains one."""
    task: TrainableTask | None = None
    """The task that is to be trained: it chooses the mode, unless one is given."""
    mode: AnyMode
    """What is made of a row: its name, or a section with options."""
    max_length: int | None = Field(default=None, ge=8, le=2**20)
    """Most tokens of one example, special tokens included; default: the tokenizer's own limit."""
    input: InputSpec
    """Which rows."""
    deduplicate: bool = False
    """Leave out every row whose columns (those that the mode reads) equal an earlier row's."""
    split: SplitSpec | None = None
    """Parts for validation and test."""
    shuffle: bool = False
    """Rows in a random order over all shards, drawn by `seed`."""
    output: TokensSpec
    """Where the token shards go."""
    workers: WorkersSpec = operational(WorkersSpec())
    """On how many CPUs and GPUs."""
    shard_rows: int = Field(default=4096, ge=1)
    """Rows of one shard: the unit of work, of commit and of resume."""
    max_error_rate: float = operational(0.01, ge=0, le=1)
    """Share of rows that may fail; above it the job ends with exit code 3."""
    seed: int = Field(default=0, ge=0)
    """Of `input.sample` and `shuffle`."""

    @property
    def subject(self) -> str:
        """What it does, in a word."""
        return self.mode.name

    @model_validator(mode="before")
    @classmethod
    def _mode_of_task(cls, data: Any) -> Any:
        """A task alone names its mode; a wrong task is left to its own field's error."""
        if isinstance(data, dict) and "mode" not in data and isinstance(data.get("task"), str):
            task = TASKS.get(data["task"])
            if task is not None and task.training_mode is not None:
                return {**data, "mode": {"name": task.training_mode}}
        return data

    @model_validator(mode="after")
    def _check_together(self) -> TokenizeJob:
        if self.mode.name == "tokenizer":
            given = [key for key in ("model", "task", "max_length", "split") if getattr(self, key) is not None]
            given += [key for key in ("deduplicate", "shuffle") if getattr(self, key)]
            if given:
                raise misfit(given[0], "not for mode tokenizer, which trains a tokenizer of the rows; remove it")
        elif self.model is None:
            raise misfit("model", "missing; whose tokenizer, such as {path: hub-id-or-folder}")
        if self.max_length is None and packs(self.mode):
            raise misfit(
                "max_length", f"missing; mode {self.mode.name} packs sequences of a fixed length, such as 2048"
            )
        return self


def packs(mode: FeatureOptions | TokenizerOptions) -> bool:
    """Whether a mode makes fixed-length sequences of many documents."""
    return mode.name == "packed" or getattr(mode, "packing", "none") != "none"
