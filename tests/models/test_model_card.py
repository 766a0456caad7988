"""The model card: what the hub's own parser reads, without paths of a machine, and nothing that labels could break."""

from __future__ import annotations

from huggingface_hub import ModelCard

from hfray.models.model_card import model_card
from hfray.models.result import AdapterFacts, BaseFacts, ResultFacts

TRAINED = ResultFacts(
    kind="train",
    name="banking-lora",
    base=BaseFacts(path="org/base", revision="a" * 40),
    method={"name": "lora", "r": 16, "target_modules": ["q_proj", "v_proj"]},
    adapter=AdapterFacts(merged=False, method="LORA"),
    task={"name": "text-classification", "top_k": 1},
    labels=("card | lost", "<script>", "top-up\nfailed"),
    data_fingerprint="d" * 64,
    data=("hf://datasets/org/banking@main", "/home/somebody/more.csv"),
    metrics={"accuracy": 0.9123456, "f1_macro": None},
    training={"steps": 300, "train_loss": 0.25},
    spec="input: /home/somebody/more.csv",
    versions={"hfray": "0.1.0"},
)


def test_the_hubs_parser_reads_it() -> None:
    card = ModelCard(model_card(TRAINED, title="org/banking-lora", curve="training_curve.svg"))
    data = card.data.to_dict()
    assert (data["base_model"], data["library_name"], data["pipeline_tag"]) == (
        "org/base",
        "peft",
        "text-classification",
    )
    assert data["base_model_relation"] == "adapter"
    assert data["datasets"] == ["org/banking"]
    assert "license" not in data
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_type) == ("accuracy", 0.9123456, "org/banking")
    assert "![training curve](training_curve.svg)" in card.text
    assert "| accuracy | 0.9123 |" in card.text
    assert "| f1_macro | n/a |" in card.text


def test_nothing_of_a_machine_and_nothing_that_breaks_a_table() -> None:
    text = model_card(TRAINED)
    assert "/home/" not in text
    assert "card \\| lost, &lt;script>, top-up failed" in text
    local = TRAINED.model_copy(update={"base": BaseFacts(path="/home/somebody/base", content="c" * 64)})
    assert "/home/" not in model_card(local)
    assert ModelCard(model_card(local)).data.base_model is None


def test_an_export_says_what_was_done() -> None:
    done = TRAINED.model_copy(
        update={
            "kind": "export",
            "quantization": "nf4",
            "dtype": "bfloat16",
            "adapter": AdapterFacts(merged=True, method="LORA", path="/home/somebody/lora"),
        }
    )
    text = model_card(done)
    assert "its adapter merged and quantised to nf4" in text
    assert "Measured before the weights were quantised." in text
    assert "| precision | nf4, rest bfloat16 |" in text
    card = ModelCard(text)
    assert (card.data.base_model_relation, card.data.library_name) == ("quantized", "transformers")
    assert card.data.tags == ["hfray", "lora", "nf4"]


def test_little_is_known() -> None:
    card = ModelCard(model_card(ResultFacts(kind="train", name="x")))
    assert card.data.to_dict() == {"library_name": "transformers", "tags": ["hfray"]}
    assert "A model trained from scratch" in card.text
