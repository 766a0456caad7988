"""`hfray.json`, which lies in every model folder that hfray makes: what the model is, and what it was made of. Knows
facts and that file; loads no model.

A folder with an adapter is loaded through it: the base model, its commit (or the digest of its folder), and the labels
are here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from hfray.errors import SpecError
from hfray.models.result_files import FACTS_FILE
from hfray.models.source import ModelSource
from hfray.types import Number, Strict


class BaseFacts(Strict):
    """The model that another one was made of."""

    path: str
    """A hub id, `package:NAME/FOLDER`, or the absolute path of a folder."""
    revision: str | None = None
    """The commit of a hub model."""
    content: str | None = None
    """The digest of a folder (`models.folder.digest_of`); None for a hub model."""

    @classmethod
    def of(cls, source: ModelSource) -> BaseFacts:
        """From what `resolve_source` found."""
        on_disk = source.is_local and not source.name.startswith("package:")
        path = source.path if on_disk else source.name
        return cls(path=path, revision=source.revision, content=source.identity.get("content"))

    @property
    def is_shared(self) -> bool:
        """Whether others can have it: a model of the hub or of a package, not a folder of one machine."""
        return self.revision is not None or self.path.startswith("package:")


class AdapterFacts(Strict):
    """The adapter of a model."""

    merged: bool
    """Whether it is in the weights; otherwise it lies in the folder itself, beside `adapter_config.json`."""
    method: str
    """What PEFT calls it: LORA, ..."""
    path: str | None = None
    """Where an export took it from: a hub id, `package:NAME/FOLDER` or the absolute path of a folder."""
    revision: str | None = None
    """The commit of a hub adapter."""
    content: str | None = None
    """The digest of a folder."""


class ResultFacts(Strict):
    """What is known of a model that hfray has made. Everything but `kind` and `name` may be unknown."""

    kind: Literal["train", "export"]
    """Of the job that made it."""
    name: str
    """Of that job."""
    base: BaseFacts | None = None
    """What it was made of; None for one that was trained from scratch."""
    method: dict[str, Any] = Field(default_factory=dict)
    """How it was tuned, as the job says: {name: lora, r: 16, ...}."""
    adapter: AdapterFacts | None = None
    """None for a model without one."""
    architecture: str | None = None
    """The class of the model, such as BertForSequenceClassification."""
    parameters: int | None = None
    """Its weights, the adapter's included."""
    dtype: str | None = None
    """Of its weights as they are saved: float32, bfloat16, float16."""
    quantization: str = "none"
    """Of its weights as they are saved: none, int8, nf4, fp4."""
    task: dict[str, Any] = Field(default_factory=dict)
    """What it was tuned for, with the options of the job: {name: text-classification, ...}."""
    labels: tuple[str, ...] = ()
    """Of its head, in the order of the outputs."""
    tokenizer_fingerprint: str | None = None
    """`models.tokenizers.fingerprint`."""
    chat_template_fingerprint: str | None = None
    """`models.tokenizers.template_hash`; None where it has no chat template."""
    data_fingerprint: str | None = None
    """Of the examples that it has learned."""
    data: tuple[str, ...] = ()
    """Where these came from: paths, or hub data sets as hf://datasets/ORG/NAME."""
    metrics: dict[str, Number] = Field(default_factory=dict)
    """Of the saved weights on the validation examples, named as the task names them."""
    training: dict[str, Number] = Field(default_factory=dict)
    """Plain figures of the run, such as steps, examples, tokens, train_loss, wall_s."""
    spec: str = ""
    """The job as it was run, in YAML."""
    training_spec: str = ""
    """Of an export: the job that had trained the model."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Name to release, as `kinds.versions.versions()` gives them."""

    def to_json(self) -> str:
        """Indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def of_record(cls, record: Any, name: str) -> ResultFacts:
        """From the JSON of `hfray.json`; keys that a later version wrote are left out. Raises SpecError, naming the
        model, for anything else."""
        if isinstance(record, Mapping):
            record = {key: value for key, value in record.items() if key in cls.model_fields}
        try:
            return cls.model_validate(record)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise SpecError(
                f"model {name}: its {FACTS_FILE} was not written by hfray ({f'{where}: ' if where else ''}"
                f"{first['msg']}); remove it, or make the model again"
            ) from None


def write_facts(folder: Path, facts: ResultFacts) -> None:
    """Writes `hfray.json` into an existing folder, whole or not at all. Raises OSError."""
    temporary = folder / f".{FACTS_FILE}.tmp"
    temporary.write_text(facts.to_json(), encoding="utf-8")
    temporary.replace(folder / FACTS_FILE)


def read_facts(folder: Path) -> ResultFacts | None:
    """Those of a folder; None if it has none. Raises SpecError for a file that hfray did not write."""
    try:
        text = (folder / FACTS_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SpecError(f"{folder / FACTS_FILE} cannot be read: {error}") from None
    return ResultFacts.of_record(_parsed(text, folder), str(folder))


def facts_of(source: ModelSource) -> ResultFacts | None:
    """Those of a model, local or on the hub; None if it has none. Raises SpecError for a file that hfray did not
    write."""
    record = source.read_json(FACTS_FILE)
    return None if record is None else ResultFacts.of_record(record, source.name)


def _parsed(text: str, folder: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SpecError(f"{folder / FACTS_FILE} is no JSON ({error}); remove it, or make the model again") from None
