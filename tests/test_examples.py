"""Everything that the project shows can be done as it is shown: the jobs, and what the documents say."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
import yaml

import hfray.errors
from hfray.cli import app
from hfray.data.columns import Columns
from hfray.data.formats import FORMATS, index_file, read_shard
from hfray.data.listing import list_files
from hfray.data.plan import Plan
from hfray.data.where import compile_where
from hfray.errors import HfrayError, SpecError
from hfray.kinds.run import INTERRUPTED
from hfray.kinds.tasks import make_task
from hfray.models.export import find_export
from hfray.models.info import check_model
from hfray.models.source import resolve_source
from hfray.spec.load import load_job
from hfray.spec.score import ScoreJob
from hfray.spec.sections import InputSpec
from hfray.spec.serve_file import is_serve_file, load_serve_file
from hfray.spec.trainer import check_trainer_fields
from hfray.tasks import TASKS
from hfray.tasks.base import ModelInfo, Processor
from hfray.tasks.features import MODES
from hfray.types import Encoded
from tests.documents import DOCUMENTS, JOBS, ROOT, anchors, blocks, commands, links, table

KINDS = {job: yaml.safe_load(job.read_text("utf-8"))["kind"] for job in JOBS}
EXAMPLES = tuple(job for job in JOBS if KINDS[job] == "score" and job.stem not in ("quickstart", "openai-batch"))
TOKENIZE_EXAMPLES = tuple(job for job in JOBS if KINDS[job] == "tokenize")
TRAIN_EXAMPLES = tuple(job for job in JOBS if KINDS[job] == "train")
EXPORT_EXAMPLES = tuple(job for job in JOBS if KINDS[job] == "export")

# The test machine has no hub. What the examples name there, as its model and data set cards have it:
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {  # id: (model type, architecture, what else a task asks)
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": (
        "distilbert",
        "DistilBertForSequenceClassification",
        {"labels": ("NEGATIVE", "POSITIVE")},
    ),
    "dslim/bert-base-NER": ("bert", "BertForTokenClassification", {"labels": ("O", "B-PER", "I-PER")}),
    "distilbert/distilbert-base-cased-distilled-squad": ("distilbert", "DistilBertForQuestionAnswering", {}),
    "facebook/bart-large-mnli": (
        "bart",
        "BartForSequenceClassification",
        {"labels": ("contradiction", "neutral", "entailment")},
    ),
    "google-bert/bert-base-uncased": ("bert", "BertForMaskedLM", {}),
    "sentence-transformers/all-MiniLM-L6-v2": ("bert", "BertModel", {"pooling": "mean", "normalize": True}),
    "cross-encoder/ms-marco-MiniLM-L6-v2": ("bert", "BertForSequenceClassification", {"labels": ("LABEL_0",)}),
    "facebook/bart-large-cnn": ("bart", "BartForConditionalGeneration", {"is_encoder_decoder": True}),
    "google-t5/t5-small": ("t5", "T5ForConditionalGeneration", {"is_encoder_decoder": True}),
    "google/flan-t5-small": ("t5", "T5ForConditionalGeneration", {"is_encoder_decoder": True}),
    "HuggingFaceTB/SmolLM2-135M-Instruct": ("llama", "LlamaForCausalLM", {}),
    "google/vit-base-patch16-224": ("vit", "ViTForImageClassification", {"labels": ("tabby", "beagle")}),
    "openai/clip-vit-base-patch32": ("clip", "CLIPModel", {"logit_scale": 100.0}),
}
DATA_SETS: dict[str, dict[str, pa.DataType]] = {
    "stanfordnlp/sst2": {"idx": pa.int32(), "sentence": pa.string(), "label": pa.int64()},
    "fancyzhx/ag_news": {"text": pa.string(), "label": pa.int64()},
    "rajpurkar/squad": {
        "id": pa.string(),
        "title": pa.string(),
        "context": pa.string(),
        "question": pa.string(),
        "answers": pa.struct({"text": pa.list_(pa.string()), "answer_start": pa.list_(pa.int32())}),
    },
    "PhilipMay/stsb_multi_mt": {"sentence1": pa.string(), "sentence2": pa.string(), "similarity_score": pa.float32()},
    "abisee/cnn_dailymail": {"article": pa.string(), "highlights": pa.string(), "id": pa.string()},
    "Salesforce/wikitext": {"text": pa.string()},
    "HuggingFaceTB/smoltalk": {
        "full_topic": pa.string(),
        "messages": pa.list_(pa.struct({"content": pa.string(), "role": pa.string()})),
    },
    "nyu-mll/glue": {"premise": pa.string(), "hypothesis": pa.string(), "label": pa.int64(), "idx": pa.int32()},
    "facebook/xnli": {"premise": pa.string(), "hypothesis": pa.string(), "label": pa.int64()},
    "Abirate/english_quotes": {"quote": pa.string(), "author": pa.string(), "tags": pa.list_(pa.string())},
    "data/banking77/train.csv": {"text": pa.string(), "category": pa.string()},
    "data/banking77/test.csv": {"text": pa.string(), "category": pa.string()},
    "microsoft/cats_vs_dogs": {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "labels": pa.int64()},
}
TOKENIZERS = {"AutoModelForCausalLM": "phi-3-mini", "AutoModelForSeq2SeqLM": "t5-small"}


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the documents are run from the repository's root."""
    monkeypatch.chdir(ROOT)


def schema_of(spec: InputSpec, spool: Path) -> tuple[pa.Schema, tuple[str, ...]]:
    """The columns of an input, and those that only the task sees."""
    if spec.path[0] in DATA_SETS:
        return pa.schema(DATA_SETS[spec.path[0]]), ()
    file = list_files(spec.path, spec.format)[0]
    return index_file(file, 1000, str(spool)).schema, FORMATS[file.format].payload


def processor_of(job: ScoreJob, shared_data: Path) -> Processor:
    """A real tokenizer of the model's family."""
    from transformers import AutoTokenizer, CLIPImageProcessor

    task = TASKS[job.task.name]
    name = "clip" if job.task.name == "zero-shot-image-classification" else "distilbert-base-uncased"
    folder = shared_data / "tokenizers" / TOKENIZERS.get(task.auto_model, name)
    if not folder.is_dir():
        pytest.skip(f"no tokenizer in {folder}")
    return Processor(AutoTokenizer.from_pretrained(folder), CLIPImageProcessor() if task.needs_images else None)


def info_of(job: ScoreJob) -> ModelInfo:
    model_type, architecture, facts = MODELS[job.model.path]
    return ModelInfo(job.model.path, model_type, architectures=(architecture,), max_length=512, **facts)


def subcommand(words: list[str]) -> Any:
    """The parsed call of a hfray command, not invoked; a command named without arguments only has to be there.

    Raises typer's usage errors.
    """
    group = typer.main.get_command(app)
    context = group.make_context("hfray", words[1:2])
    name, command, _ = group.resolve_command(context, words[1:2])
    return command.make_context(name, words[2:], parent=context, resilient_parsing=len(words) == 2)


def hfray_commands(document: Path) -> list[list[str]]:
    return [words for words in commands(document) if words[0] == "hfray" and len(words) > 1]


def test_there_is_one_example_per_task() -> None:
    assert {load_job(path).task.name for path in EXAMPLES} == set(TASKS)
    assert [load_job(path).task.name for path in EXAMPLES] == [path.stem for path in EXAMPLES]


def test_jobs_do_not_share_an_output_or_a_name() -> None:
    jobs = [load_job(path) for path in JOBS]
    assert len({job.output.path for job in jobs}) == len({job.name for job in jobs}) == len(jobs)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_job_says_what_it_does_first(path: Path) -> None:
    assert path.read_text("utf-8").startswith("# ")
    load_job(path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_input_of_a_job_has_what_it_needs(path: Path, tmp_path: Path) -> None:
    job = load_job(path)
    columns = Columns(job.input.columns, *schema_of(job.input, tmp_path))
    columns.require(TASKS[job.task.name].required_columns(job.task), "task")
    if job.input.where is not None:
        columns.require(compile_where(job.input.where).columns, "where")
    if job.metrics is not None and job.metrics.label is not None:
        columns.require([job.metrics.label], "metrics")


def test_the_requests_of_the_batch_example_are_answered(shared_data: Path, tmp_path: Path) -> None:
    job = load_job(ROOT / "jobs" / "openai-batch.yaml")
    (file,) = list_files(job.input.path, job.input.format)
    plan = Plan([index_file(file, job.shard_rows, str(tmp_path))])
    task = make_task(job, processor_of(job, shared_data), info_of(job))
    encoded = task.encode(read_shard(plan.shard(0), plan.schema).rows())
    assert [type(each) for each in encoded] == [Encoded] * 3


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_model_of_a_job_has_the_head_of_its_task(path: Path, tmp_path: Path) -> None:
    job = load_job(path)
    model_type, architecture, _ = MODELS[job.model.path]
    config = {"model_type": model_type, "architectures": [architecture]}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    (tmp_path / "model.safetensors").touch()
    assert check_model(resolve_source(str(tmp_path), None), TASKS[job.task.name]).model_type == model_type


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_task_of_a_job_takes_its_options(path: Path, shared_data: Path) -> None:
    job = load_job(path)
    task = TASKS[job.task.name](job.task, processor_of(job, shared_data), info_of(job))
    assert isinstance(task.result_type(), pa.DataType)


@pytest.mark.parametrize("path", EXPORT_EXAMPLES, ids=lambda path: path.stem)
def test_the_model_of_an_export_is_found(path: Path, tmp_path: Path) -> None:
    job = load_job(path)
    if job.model.path not in MODELS:
        assert job.model.path.startswith("out/")  # what another example makes
        return
    model_type, architecture, _ = MODELS[job.model.path]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": [architecture]}))
    (tmp_path / "model.safetensors").touch()
    found = find_export(job.model.model_copy(update={"path": str(tmp_path)}), job.task, job.labels)
    assert found.class_name == architecture


@pytest.mark.parametrize("path", TOKENIZE_EXAMPLES, ids=lambda path: path.stem)
def test_the_input_of_a_tokenize_job_fits_its_mode(path: Path, tmp_path: Path, shared_data: Path) -> None:
    """With a real tokenizer in place of the model's own, which the test machine does not have."""
    from transformers import AutoTokenizer

    job = load_job(path)
    columns = Columns(job.input.columns, *schema_of(job.input, tmp_path))
    if job.mode.name == "tokenizer":
        columns.require(("text",), "mode")
        return
    mode, present = MODES[job.mode.name], {field.name: field.type for field in columns.schema}
    columns.require(mode.required_columns(job.mode, present), "mode")
    decoder = "SmolLM" in job.model.path
    tokenizer = AutoTokenizer.from_pretrained(
        shared_data / "tokenizers" / ("phi-3-mini" if decoder else "distilbert-base-uncased")
    )
    assert "input_ids" in mode(job.mode, tokenizer, job.max_length, present).packed_schema().names


@pytest.mark.parametrize("path", TRAIN_EXAMPLES, ids=lambda path: path.stem)
def test_the_inputs_of_a_training_job_fit_its_mode(path: Path, tmp_path: Path) -> None:
    job = load_job(path)
    mode = MODES[job.features_mode]
    for spec in (job.input.train, job.input.validation):
        if spec is None:
            continue
        columns = Columns(spec.columns, *schema_of(spec, tmp_path))
        present = {field.name: field.type for field in columns.schema}
        options = job.mode or mode.Options(name=mode.name)
        columns.require(mode.required_columns(options, present), "mode")
        if job.task.name == "text-classification":
            columns.require(("label",), "task")
        if spec.where is not None:
            columns.require(compile_where(spec.where).columns, "where")
    assert check_trainer_fields(job.trainer)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_of_the_documents_parse(document: Path) -> None:
    for words in hfray_commands(document):
        context = subcommand(words)
        for override in context.params.get("overrides") or ():
            assert "=" in override, words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_jobs_that_the_documents_run_are_there(document: Path) -> None:
    for words in hfray_commands(document):
        context = subcommand(words)
        files = [context.params["job"]] if context.params.get("job") else context.params.get("files") or ()
        for file in files:
            if str(file).startswith("jobs/") and "*" not in str(file):
                load_job(file, context.params.get("overrides") or ())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_topics_that_the_documents_explain_are_there(document: Path) -> None:
    from hfray.spec.explain import explain

    for words in hfray_commands(document):
        topic = subcommand(words).params.get("topic")
        if topic is not None and not topic.isupper():
            assert explain(topic)


def test_a_wrong_command_would_be_noticed() -> None:
    with pytest.raises(Exception, match="--nonsense"):
        subcommand(["hfray", "run", "JOB.yaml", "--nonsense"])
    with pytest.raises(Exception, match="nonsense"):
        subcommand(["hfray", "nonsense"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_of_the_documents_are_there(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for words in commands(document):
        if words[0] == "make":
            assert {word for word in words[1:] if not word.startswith("-") and "=" not in word} <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_yaml_of_the_documents_is_valid(document: Path, tmp_path: Path) -> None:
    """A whole job as it is; a few sections of one in place of those of an example."""
    base = yaml.safe_load((ROOT / "jobs" / "text-classification.yaml").read_text("utf-8"))
    for number, body in enumerate(blocks(document, "yaml")):
        value = yaml.safe_load(body)
        path = tmp_path / f"{document.stem}-{number}.yaml"
        if "applications" in value:
            path.write_text(body, "utf-8")
            load_serve_file(path)
            continue
        path.write_text(body if "kind" in value else yaml.safe_dump(base | value), "utf-8")
        load_job(path)


@pytest.mark.parametrize("config", sorted(ROOT.glob("serve_configs/*.yaml")), ids=lambda path: path.stem)
def test_serve_files_are_valid_as_ray_serve_takes_them(config: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    assert is_serve_file(config)
    file = load_serve_file(config)
    assert file.models
    ServeDeploySchema.model_validate(file.content)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_the_documents_lead_somewhere(document: Path) -> None:
    for target in links(document):
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_the_task_table_of_the_readme_is_that_of_the_command() -> None:
    said = table(ROOT / "README.md", "task")
    shown = json.loads(
        subprocess.run(
            [sys.executable, "-m", "hfray.cli", "tasks", "--json"], capture_output=True, text=True, check=True
        ).stdout
    )
    assert said == [
        (each["name"], ", ".join([*each["columns"], *(f"[{c}]" for c in each["optional_columns"])]), each["summary"])
        for each in shown
    ]


@pytest.mark.parametrize("document", ["README.md", "docs/operations.md"])
def test_the_documents_list_every_exit_code(document: str) -> None:
    errors = [each for _, each in inspect.getmembers(hfray.errors, inspect.isclass) if issubclass(each, HfrayError)]
    assert SpecError in errors
    codes = {each.exit_code for each in errors}
    assert {int(row[0]) for row in table(ROOT / document, "exit code")} == codes | {0, INTERRUPTED}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_no_path_of_a_machine(document: Path) -> None:
    assert not re.search(r"(?<![\w.])/(home|Users|root|work)/", document.read_text("utf-8"))
