"""Code of a repository is never run, whichever of its files asks for it (threat T6): a model that Transformers knows
loads and answers without it, another one is refused."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForSequenceClassification

from hfray.errors import RowError, SpecError
from hfray.inference.model_use import check_use, load_use
from hfray.inference.predictor import Predictor
from hfray.spec.endpoint import EndpointSpec
from hfray.tasks import TASKS
from tests.models.lora_support import save_lora
from tests.models.support import save_decoder, save_model
from tests.serving.playground_support import save_clip

torch.set_num_threads(1)

CODE = """
import pathlib
pathlib.Path({marker!r}).touch()
from transformers import BertConfig as C, BertForSequenceClassification as M, BertTokenizer as T
from transformers import CLIPImageProcessor as I, CLIPProcessor as P
def generate(model, *args, **kwargs):
    return None
"""
AUTO_MAP = {
    "AutoConfig": "canary.C", "AutoModel": "canary.M", "AutoModelForSequenceClassification": "canary.M",
    "AutoModelForCausalLM": "canary.M", "AutoTokenizer": ["canary.T", "canary.T"], "AutoImageProcessor": "canary.I",
    "AutoProcessor": "canary.P", "AutoFeatureExtractor": "canary.I",
}  # fmt: skip
REQUESTS: dict[str, dict[str, Any]] = {
    "auto_map": {"auto_map": AUTO_MAP},
    "trust_remote_code": {"trust_remote_code": True},
    "both": {"auto_map": AUTO_MAP, "trust_remote_code": True, "custom_generate": "."},
}


class Folder:
    """Folders of models and adapters with code beside them, and whether any of it ran."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._marker = root / "it-ran"

    @property
    def ran(self) -> bool:
        return self._marker.exists()

    def plant(self, name: str, place: str, keys: dict[str, Any]) -> None:
        """Writes keys into `FILE` or `FILE/KEY`, whose value is a mapping, and code that they name."""
        file, _, key = place.partition("/")
        path = self.root / name / file
        content = json.loads(path.read_text())
        (content[key] if key else content).update(keys)
        path.write_text(json.dumps(content))
        for code in ("canary.py", "__init__.py", "custom_generate/generate.py"):
            (self.root / name / code).parent.mkdir(exist_ok=True)
            (self.root / name / code).write_text(CODE.format(marker=str(self._marker)))


def answers(folder: Folder, task: str) -> Sequence[Any]:
    """Of the model, or model and adapter, of the folder, as a worker and a replica get them."""
    model: dict[str, Any] = {"path": str(folder.root / "model"), "dtype": "float32"}
    if (folder.root / "adapter").exists():
        model["adapter"] = str(folder.root / "adapter")
    options: dict[str, Any] = {"name": task}
    row: dict[str, Any] = {"text": "a warm day"}
    if task == "text-generation":
        options["max_new_tokens"] = 4
        row = {"prompt": "a warm day"}
    if task == "zero-shot-image-classification":
        file = io.BytesIO()
        Image.new("RGB", (32, 32), (200, 30, 30)).save(file, "PNG")
        options["candidate_labels"] = ["warm", "cold"]
        row = {"image": file.getvalue()}
    spec = EndpointSpec.model_validate({"model": model, "task": options, "engine": {"name": "batch"}})
    checked, _, _ = check_use(spec)
    ready = load_use(checked)
    with closing(ready.engine):
        found: Sequence[Any] = Predictor(TASKS[task](checked.task, ready.processor, ready.info), ready.engine).predict(
            [row]
        )
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Sequence[Any]]]:
    """By task: folders without any code, and their answers."""
    roots = {task: tmp_path_factory.mktemp(task) for task in {task for task, _, _ in PLACES}}
    save_model(roots["text-classification"] / "model")
    model = AutoModelForSequenceClassification.from_pretrained(roots["text-classification"] / "model")
    adapter = roots["text-classification"] / "adapter"
    save_lora(model, adapter, target_modules=["query"], task_type="SEQ_CLS")
    save_decoder(roots["text-generation"] / "model")
    save_clip(roots["zero-shot-image-classification"] / "model")
    found = {task: (root, answers(Folder(root), task)) for task, root in roots.items()}
    assert not any(isinstance(answer, RowError) for _, answers in found.values() for answer in answers)
    return found


PLACES = [
    ("text-classification", "model", "config.json"),
    ("text-classification", "model", "tokenizer_config.json"),
    ("text-classification", "adapter", "adapter_config.json"),
    ("text-generation", "model", "config.json"),
    ("text-generation", "model", "generation_config.json"),
    ("text-generation", "model", "tokenizer_config.json"),
    ("zero-shot-image-classification", "model", "config.json"),
    ("zero-shot-image-classification", "model", "config.json/text_config"),
    ("zero-shot-image-classification", "model", "config.json/vision_config"),
    ("zero-shot-image-classification", "model", "tokenizer_config.json"),
    ("zero-shot-image-classification", "model", "preprocessor_config.json"),
]


@pytest.mark.parametrize("asks", REQUESTS)
@pytest.mark.parametrize(("task", "name", "place"), PLACES, ids=[f"{task}: {place}" for task, _, place in PLACES])
@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments:UserWarning")  # PEFT's, of what it does not know
def test_a_known_model_answers_without_its_code(
    made: Any, tmp_path: Path, task: str, name: str, place: str, asks: str
) -> None:
    root, plain = made[task]
    folder = Folder(shutil.copytree(root, tmp_path / "copy"))
    folder.plant(name, place, REQUESTS[asks])
    assert answers(folder, task) == plain
    assert not folder.ran


@pytest.mark.parametrize("asks", REQUESTS)
@pytest.mark.parametrize("place", ["config.json", "config.json/text_config"])
def test_a_model_that_nobody_knows_is_refused(made: Any, tmp_path: Path, place: str, asks: str) -> None:
    folder = Folder(shutil.copytree(made["zero-shot-image-classification"][0], tmp_path / "copy"))
    if place != "config.json":  # the class of CLIP reads its text part as CLIP's own, whatever it is called
        folder.plant("model", "config.json", {"model_type": "llava"})
    folder.plant("model", place, {"model_type": "my_model", **REQUESTS[asks]})
    with pytest.raises(SpecError, match=r"its config\.json (needs code from the repository|cannot be used)") as caught:
        answers(folder, "zero-shot-image-classification")
    assert "trust_remote_code" not in str(caught.value)
    assert not folder.ran


@pytest.mark.slow
def test_the_code_would_run_where_it_is_trusted(made: Any, tmp_path: Path) -> None:
    """The canaries are real. In a process of its own: Transformers keeps what it has once trusted."""
    folders = {}
    for name, task, file in (
        ("AutoConfig", "text-classification", "config.json"),
        ("AutoTokenizer", "text-generation", "tokenizer_config.json"),
        ("AutoImageProcessor", "zero-shot-image-classification", "preprocessor_config.json"),
    ):
        folders[name] = Folder(shutil.copytree(made[task][0], tmp_path / name))
        folders[name].plant("model", file, REQUESTS["auto_map"])
    trusting = "".join(
        f"transformers.{name}.from_pretrained({str(each.root / 'model')!r}, trust_remote_code=True)\n"
        for name, each in folders.items()
    )
    subprocess.run(
        [sys.executable, "-c", f"import transformers\n{trusting}"],
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
        timeout=120,
        check=True,
    )
    assert {name: each.ran for name, each in folders.items()} == dict.fromkeys(folders, True)
