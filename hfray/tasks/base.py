"""The contract of a task. Knows text, labels and numpy; not devices, not batch shapes, not Ray.

A new task is one file with a subclass of `Task` and one line in `hfray.tasks.TASKS`; scoring, the command
line's help, the JSON Schema and the contract tests all read that class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from hfray.errors import RowError
from hfray.types import Encoded, Output, Result, Row, Strict

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a task may know of a model, read from its configuration (`models.info`); no weights, no tensors."""

    name: str
    model_type: str
    architectures: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    """Index to label."""
    problem_type: str | None = None
    """"single_label_classification", "multi_label_classification", "regression" or unknown."""
    max_length: int | None = None
    """Most tokens of one input, special tokens included; None if the model states no limit."""
    is_encoder_decoder: bool = False
    pooling: str | None = None
    """A sentence-transformers folder's own pooling mode, in the words of `types.Pool.mode`."""
    normalize: bool | None = None
    """Whether a sentence-transformers folder ends in a Normalize module."""
    include_prompt: bool = True
    """Whether prompt tokens take part in pooling (sentence-transformers)."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """A sentence-transformers folder's stored prompts by name ("query", "passage", ...)."""
    default_prompt: str | None = None
    logit_scale: float | None = None
    """exp() already taken; CLIP and SigLIP. Known only once the weights are loaded."""
    logit_bias: float | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    """The model's own generation defaults: eos_token_id (int or list), max_new_tokens, forced_bos_token_id, num_beams,
    task_specific_params, ..."""


@dataclass(frozen=True, slots=True)
class Processor:
    """What turns raw input into model input: a Transformers tokenizer and, for vision, an image processor."""

    tokenizer: Any = None
    image_processor: Any = None


class TaskOptions(Strict):
    """Options that every task has; a task's own `Options` adds to them and narrows `name` to a literal."""

    name: str
    """Which task; `hfray tasks` lists them."""
    max_length: int | None = Field(default=None, ge=4)
    """Most tokens of one model input; default: the model's own limit. Longer text is truncated."""
    max_chars: int = Field(default=1_000_000, ge=1)
    """Most characters of one text, checked before tokenising."""
    over_max_chars: Literal["error", "truncate"] = "error"
    """What happens to a longer text: its row fails, or the text is cut."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a report plots of one result: a label to count, or a number for a histogram."""

    label: str | None = None
    score: float | None = None


class Task(ABC):
    """Translates between rows and a model."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for `hfray tasks`."""
    mode: ClassVar[Literal["forward", "generate"]]
    auto_model: ClassVar[str]
    """The Transformers auto class with the right head, such as "AutoModelForSequenceClassification"."""
    columns: ClassVar[tuple[str, ...]]
    """Columns that a row must have."""
    optional_columns: ClassVar[tuple[str, ...]] = ()
    metric_names: ClassVar[tuple[str, ...]] = ()
    """All that `metrics` may give; which of them depends on the model's head and on the references."""
    needs_references: ClassVar[bool] = True
    """Whether the metrics compare results with a reference column."""
    needs_text: ClassVar[bool] = True
    """Whether the task tokenises, so that the model must bring a tokenizer."""
    needs_images: ClassVar[bool] = False
    training_mode: ClassVar[str | None] = None
    """Which mode of `hfray.tasks.features` makes the task's training examples; None: it cannot be trained."""
    Options: ClassVar[type[TaskOptions]]

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        """Checks the options against the model: raises SpecError (say which option, what the model has)."""
        self.options = options
        self.processor = processor
        self.model_info = model_info

    @classmethod
    def generates_causally(cls) -> bool:
        """Whether a decoder-only model writes text: what the continuous engine does."""
        return cls.mode == "generate" and cls.auto_model == "AutoModelForCausalLM"

    @classmethod
    def required_columns(cls, options: Any) -> tuple[str, ...]:
        """The columns that a row must have under these options; needs no model."""
        return cls.columns

    @abstractmethod
    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        """Rows to engine items, one entry per row, in order; never raises for a bad row, never writes into it.

        options: replaces the job's own `Options` for these rows (a request's parameters); None keeps them.
        """

    @abstractmethod
    def decode(self, outputs: Sequence[Output], carry: Any) -> Result:
        """The outputs of one row's items, in order, and its carry, to the result. May raise RowError."""

    @abstractmethod
    def result_type(self) -> pa.DataType:
        """The Arrow type of `result`; fixed for a job, so that all parts share one schema."""

    def summarize(self, result: Result) -> Summary:
        """What the report plots of a result."""
        return Summary()

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """Compares results (of rows that did not fail) with reference values, one for one; without `needs_references`
        these are all None.

        Raises RowError-free: a reference of the wrong type is a DataError that names the value.
        """
        raise NotImplementedError(f"task {self.name} has no metrics")
