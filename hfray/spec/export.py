"""`kind: export`: a model to a folder that loads as it is: adapter merged, quantised once, or in another precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from hfray.spec.fields import NAME_PATTERN, misfit, operational
from hfray.spec.labels import Labels
from hfray.spec.sections import ModelSpec
from hfray.spec.train import ModelOutputSpec
from hfray.tasks import TASKS
from hfray.types import Strict

if TYPE_CHECKING:
    AnyTask = str
else:
    AnyTask = Literal[tuple(TASKS)]


class ExportModelSpec(Strict):
    """Which model, and how its weights are saved."""

    path: str = Field(min_length=1)
    """A training result, a hub id, a folder, or `package:NAME/FOLDER`. Of an adapter, its base is found."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; resolved to its commit once."""
    adapter: str | None = None
    """A PEFT adapter to merge into the weights: hub id or folder."""
    adapter_revision: str | None = None
    """Branch, tag or commit of the adapter."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the saved weights (of a quantised model: of those that stay unquantised); `auto` is that of the
    source."""
    quantization: Literal["none", "int8", "nf4", "fp4"] = "none"
    """bitsandbytes quantisation, after merging."""
    int8_threshold: float = Field(default=6.0, ge=0)
    """int8: columns of activations with a value above it are multiplied unquantised (LLM.int8)."""
    double_quantization: bool = False
    """nf4, fp4: quantise the scales too; saves another 0.4 bit per weight."""

    def as_model(self) -> ModelSpec:
        """Where the weights come from, as jobs of other kinds say it."""
        keys = ("path", "revision", "adapter", "adapter_revision", "int8_threshold", "double_quantization")
        return ModelSpec(device="cpu", **{key: getattr(self, key) for key in keys})


class ExportWorkersSpec(Strict):
    """What the one worker takes, in the words of the other kinds. Nothing here changes the result."""

    cpus: float = operational(1.0, ge=0)
    """CPUs of one worker; on a CPU one worker per core is fastest."""
    gpus: float = operational(0.0, ge=0)
    """GPUs of one worker; fractions share a GPU."""
    memory_gb: float | None = operational(None, gt=0)
    """Memory that Ray reserves for one worker, in GiB."""
    labels: Labels = operational({})
    """Only on nodes with these labels, such as {ray.io/market-type: spot}; `!spot` is any other value or none,
    `in(a, b)` one of several."""


class ExportJob(Strict):
    """Merges an adapter into its model, quantises it, or changes its precision, and saves it."""

    kind: Literal["export"] = "export"
    """What the job does."""
    name: str = operational(..., pattern=NAME_PATTERN)
    """Names reports and logs: lower-case letters, digits, `.`, `_`, `-`."""
    model: ExportModelSpec
    """Which model, and how its weights are saved."""
    task: AnyTask | None = None
    """The task whose head the model has; default: that of its training, or by its configuration."""
    labels: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(default=None, min_length=1)
    """Labels in the order of the head's outputs, where the model's own are not right (LABEL_0 and the like)."""
    output: ModelOutputSpec
    """Where the model goes."""
    workers: ExportWorkersSpec = operational(ExportWorkersSpec())
    """On how many CPUs and GPUs."""

    @property
    def subject(self) -> str:
        """What it does, in a word."""
        return self.model.quantization if self.model.quantization != "none" else self.model.dtype

    @model_validator(mode="after")
    def _check_together(self) -> ExportJob:
        if self.model.adapter is None and self.model.adapter_revision is not None:
            raise misfit("model.adapter_revision", "of what? There is no model.adapter")
        return self
