"""The parts that jobs of every kind share. Frozen values with a docstring under each field, which `hfray explain`
prints; knows no file, no Ray."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hfray.spec.fields import NAME_PATTERN, misfit, operational
from hfray.spec.labels import Labels
from hfray.spec.row_range import check_range
from hfray.types import Strict

RESERVED_COLUMNS = ("result", "error")


def _as_tuple(value: object) -> object:
    if not isinstance(value, str | list | tuple):
        raise ValueError("must be a path in quotes or a list of them")
    return (value,) if isinstance(value, str) else value


def _as_batch_engine(value: object) -> object:
    return {"name": "batch", **value} if isinstance(value, dict) and "name" not in value else value


class AdapterSpec(Strict):
    """One of several LoRA adapters."""

    path: str = Field(min_length=1)
    """Hub id or folder."""
    revision: str | None = None
    """Branch, tag or commit."""


def _as_adapter(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


class ModelSpec(Strict):
    """Which model, and how it is loaded."""

    path: str = Field(min_length=1)
    """A hub id, a folder, or `package:NAME/FOLDER` for a folder inside an installed Python package."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; resolved to its commit once."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights; `auto` is bfloat16 where the hardware multiplies it, else float32."""
    quantization: Literal["none", "int8", "nf4", "fp4"] = "none"
    """bitsandbytes quantisation: saves memory, not time."""
    int8_threshold: float = Field(default=6.0, ge=0)
    """int8: columns of activations with a value above it are multiplied unquantised (LLM.int8)."""
    double_quantization: bool = False
    """nf4, fp4: quantise the scales too; saves another 0.4 bit per weight."""
    adapter: str | None = None
    """A PEFT adapter: hub id or folder."""
    adapter_revision: str | None = None
    """Branch, tag or commit of the adapter."""
    adapters: dict[
        Annotated[str, Field(pattern=NAME_PATTERN)],
        Annotated[AdapterSpec, BeforeValidator(_as_adapter, json_schema_input_type=str | AdapterSpec)],
    ] = Field(default_factory=dict)
    """LoRA adapters by name (name: path, or name: {path, revision}), which share the model: each row names its own in
    the column `adapter`; null there is the model without one."""
    max_adapters: int = operational(8, ge=1)
    """Adapters in memory at once; they are loaded when a row wants them, and the least recently used goes."""
    merge_adapter: bool = True
    """Merge the adapter into the weights (faster); an adapter on a quantised model always stays attached."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """Attention implementation; `auto` is Transformers' choice."""
    device: Literal["auto", "cpu", "cuda"] = operational("auto")
    """`auto` is the GPU that Ray gives the worker, or the CPU."""
    device_map: Literal["auto", "balanced"] | None = operational(None)
    """Spreads a model that is too large for one GPU over those of its worker (`workers.gpus`)."""

    @model_validator(mode="after")
    def _check_adapters(self) -> ModelSpec:
        if self.adapters and self.adapter is not None:
            raise misfit("adapters", "model.adapter is for all rows; name it here too, and leave model.adapter out")
        if self.adapters and self.device_map is not None:
            raise misfit("adapters", "adapters are on one device, and model.device_map spreads the model")
        return self


class InputSpec(Strict):
    """Which rows. Files are read where they lie; nothing is copied."""

    path: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        BeforeValidator(_as_tuple, json_schema_input_type=str | list[str]),
    ] = Field(min_length=1)
    """Files, folders or globs; local, s3://, gs://, az:// or hf://. One path or a list."""
    format: Literal["auto", "parquet", "jsonl", "csv", "text", "images", "huggingface", "openai-batch"] = "auto"
    """`auto` goes by the suffix; `huggingface` is a hub data set or a folder that `datasets` saved; `openai-batch` is a
    file of OpenAI's Batch API, answered in output.jsonl and error.jsonl."""
    columns: dict[str, str] = Field(default_factory=dict)
    """New name: name in the files. Renames columns, in the output too."""
    select: str | None = None
    """Only these rows of the input, as a slice: `1000:2000`, `:10%` or `-500:`."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many rows of the input (of those selected), counted before `sample` and `where`."""
    sample: int | float | None = None
    """A random choice of these: so many rows, or such a share of them; drawn by the job's seed, before `where`."""
    where: str | None = None
    """Keep the rows for which this is true, such as `length(text) > 200 and label is not None`."""
    name: str | None = None
    """huggingface: the configuration of the data set."""
    split: str | None = None
    """huggingface: the split; needed where there are several."""
    revision: str | None = None
    """huggingface: branch, tag or commit of the data set."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """csv: the character between fields; default: a comma, in .tsv files a tab."""
    skip_bad_files: bool = operational(False)
    """Finish without the files that cannot be read; otherwise the job ends with their names and exit code 4."""

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        taken = [name for name in RESERVED_COLUMNS if name in columns]
        if taken:
            raise misfit(taken[0], "the output writes a column of this name itself; choose another")
        sources = list(columns.values())
        twice = [name for name in columns if sources.count(columns[name]) > 1]
        if twice:
            raise misfit(twice[-1], f"column {columns[twice[-1]]!r} is already renamed to {twice[0]!r}")
        return columns

    @field_validator("select")
    @classmethod
    def _check_select(cls, select: str | None) -> str | None:
        return None if select is None else check_range(select)

    @field_validator("sample")
    @classmethod
    def _check_sample(cls, sample: int | float | None) -> int | float | None:
        if sample is not None and (sample < 1 if isinstance(sample, int) else not 0 < sample < 1):
            raise ValueError(f"must be a number of rows, such as 1000, or a share of them, such as 0.1; not {sample}")
        return sample

    @model_validator(mode="after")
    def _check_format(self) -> InputSpec:
        for key in ("name", "split", "revision"):
            if getattr(self, key) is not None and self.format not in ("auto", "huggingface"):
                raise misfit(key, f"only for format huggingface, not {self.format}")
        if self.delimiter is not None and self.format not in ("auto", "csv"):
            raise misfit("delimiter", f"only for format csv, not {self.format}")
        return self


class OutputSpec(Strict):
    """Where the results go: one part per shard, in input order."""

    path: str = operational(..., min_length=1)
    """A folder, local or on s3://, gs://, az://; one job each."""
    format: Literal["parquet", "jsonl"] = "parquet"
    """Of the parts."""


class MetricsSpec(Strict):
    """Compares results with a reference column by the task's own metrics."""

    label: str | None = None
    """The reference column; every task has one but perplexity, whose metrics need none (`metrics: {}`)."""


class BatchEngineSpec(Strict):
    """Length-sorted batches under a token budget."""

    name: Literal["batch"] = "batch"
    """The engine."""
    max_batch_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = operational("auto")
    """Tokens of one batch, padding included; `auto` is 2,048 on a CPU and 16,384 on a GPU, halved when memory runs
    out."""
    max_batch_items: int = operational(1024, ge=1)
    """Items of one batch."""


class ContinuousEngineSpec(Strict):
    """Texts join and leave a running batch between steps; for decoder-only generation."""

    name: Literal["continuous"]
    """The engine."""
    cache_gb: Annotated[float, Field(gt=0)] | Literal["auto"] = operational("auto")
    """Memory for keys and values, in GiB; `auto` is four fifths of what is free on a GPU, on a CPU a quarter of it, but
    no more than 1 GiB, or than 16,384 tokens take. What does not fit waits, or is computed again."""
    max_step_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = operational("auto")
    """Tokens fed to the model at once: one of each running text, and pieces of prompts; `auto` is 4,096 on
    a GPU and 1,024 on a CPU, where it is 256 for endpoints, whose texts should not stand still meanwhile; halved when
    memory runs out."""
    max_running: Annotated[int, Field(ge=1)] | Literal["auto"] = operational("auto")
    """Texts in the batch at once; `auto` is 64 on a CPU and 256 on a GPU."""


class FakeEngineSpec(Strict):
    """No model: answers made from a digest of the input, for tests and scale runs."""

    name: Literal["fake"]
    """The engine."""
    seconds_per_item: float = operational(0.0, ge=0)
    """How slow it pretends to be."""


EngineSpec = Annotated[
    Annotated[BatchEngineSpec | ContinuousEngineSpec | FakeEngineSpec, Field(discriminator="name")],
    BeforeValidator(_as_batch_engine),
]
"""Which engine; one without a name is `batch`."""


class WorkersSpec(Strict):
    """How many workers, and what each takes. Nothing here changes an answer."""

    min: int = operational(1, ge=1)
    """Workers that are kept from the start."""
    max: int | None = operational(None, ge=1)
    """Most workers; default: as many as the cluster's CPUs (or GPUs) allow."""
    cpus: float = operational(1.0, ge=0)
    """CPUs of one worker; on a CPU one worker per core is fastest."""
    gpus: float = operational(0.0, ge=0)
    """GPUs of one worker; fractions share a GPU."""
    memory_gb: float | None = operational(None, gt=0)
    """Memory that Ray reserves for one worker, in GiB."""
    labels: Labels = operational({})
    """Only on nodes with these labels, such as {ray.io/market-type: spot}; `!spot` is any other value or none,
    `in(a, b)` one of several."""

    @model_validator(mode="after")
    def _check_range(self) -> WorkersSpec:
        if self.max is not None and self.min > self.max:
            raise misfit("min", f"{self.min} is above workers.max, {self.max}")
        return self
