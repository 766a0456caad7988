"""Tokenizers of the real classes, with vocabularies trained here; T5's own."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from transformers import M2M100Tokenizer, MarianConfig, MarianTokenizer, MBart50Tokenizer, NllbTokenizer

from hfray.errors import RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor
from hfray.tasks.streaming import StreamDecoder, decode_text
from hfray.tasks.translation import Translation, language_codes
from hfray.types import Encoded
from tests.tasks.generation_support import answer, tokenizer_of
from tests.tasks.support import tiny_model

SENTENCES = (
    "The cat sat on the mat.", "A dog barks at the moon tonight.", "Le chat dort sur le tapis.",
    "Der Hund bellt den Mond an.", "Where is the next train station, please?",
)  # fmt: skip
T5_PAIRS = {
    "translation_en_to_de": {"prefix": "translate English to German: ", "num_beams": 4, "max_length": 300},
    "translation_en_to_fr": {"prefix": "translate English to French: ", "num_beams": 4, "max_length": 300},
}


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SentencePiece model."""
    folder = tmp_path_factory.mktemp("spm")
    (folder / "text.txt").write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "source"), vocab_size=46, minloglevel=2
    )
    return folder / "source.model"


def pieces_of(model: Path) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    return [processor.id_to_piece(index) for index in range(3, len(processor))]


def marian_tokenizer(model: Path, *codes: str, **kwargs: Any) -> Any:
    tokens = ["</s>", "<unk>", *codes, *pieces_of(model), "<pad>"]
    path = model.parent / "vocab.json"
    path.write_text(json.dumps({token: index for index, token in enumerate(tokens)}), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        return MarianTokenizer(source_spm=str(model), target_spm=str(model), vocab=str(path), **kwargs)


def make(
    tokenizer: Any, *, model_type: str = "marian", generation: dict[str, Any] | None = None, **options: Any
) -> Translation:
    info = ModelInfo(
        name="tiny", model_type=model_type, is_encoder_decoder=True, max_length=64, generation=generation or {}
    )
    return Translation(Translation.Options(**options), Processor(tokenizer=tokenizer), info)


def ids_of(task: Translation, text: str = "The cat sat on the mat.", options: Any = None) -> list[int]:
    (encoded,) = task.encode([{"text": text}], options)
    assert not isinstance(encoded, RowError)
    return encoded.items[0].inputs["input_ids"].tolist()  # type: ignore[no-any-return]


def forced_of(task: Translation, options: Any = None) -> int | None:
    (encoded,) = task.encode([{"text": "a"}], options)
    assert not isinstance(encoded, RowError)
    params = encoded.items[0].generation
    assert params is not None
    return params.forced_bos_token_id


def test_marian_of_one_pair(sentence_model: Path) -> None:
    tokenizer = marian_tokenizer(sentence_model, target_lang="de")
    config = MarianConfig(
        vocab_size=len(tokenizer), d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, max_position_embeddings=64, init_std=0.3,
        decoder_start_token_id=tokenizer.pad_token_id, eos_token_id=0, pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = tiny_model("AutoModelForSeq2SeqLM", config)
    wanted = []
    for text in SENTENCES:
        ids = torch.tensor([tokenizer(text).input_ids])
        tokens = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, num_beams=3, do_sample=False
        )
        wanted.append(tokenizer.decode(tokens[0], skip_special_tokens=True, clean_up_tokenization_spaces=False))
    task = make(tokenizer, max_new_tokens=9, num_beams=3)
    assert answer(task, model, [{"text": text} for text in SENTENCES]) == wanted
    assert ids_of(make(tokenizer, target_language="de")) == ids_of(task)
    with pytest.raises(SpecError, match="translates into 'de' only, not into 'fr'"):
        make(tokenizer, target_language="fr")


def test_marian_of_many_targets(sentence_model: Path) -> None:
    tokenizer = marian_tokenizer(sentence_model, ">>fra<<", ">>deu<<")
    plain = ids_of(make(tokenizer))
    french = ids_of(make(tokenizer, target_language="fra"))
    assert french[0] == tokenizer.convert_tokens_to_ids(">>fra<<")
    assert french[1:] == plain
    assert ids_of(make(tokenizer, target_language=">>fra<<")) == french
    assert ids_of(make(tokenizer), ">>fra<< The cat sat on the mat.") == french
    with pytest.raises(SpecError, match=r"'fr' is no language code of tiny; did you mean 'fra'"):
        make(tokenizer, target_language="fr")


def test_marian_streams(sentence_model: Path) -> None:
    tokenizer = marian_tokenizer(sentence_model)
    for text in SENTENCES:
        tokens = tokenizer(text).input_ids
        decoder = StreamDecoder(tokenizer)
        pieces = [decoder.push([token]) for token in tokens]
        assert "".join(pieces) + decoder.finish() == decode_text(tokenizer, tokens) == text


def test_t5_is_told_in_words() -> None:
    tokenizer = tokenizer_of("t5-small")
    wanted = tokenizer("translate English to German: Hello").input_ids

    def t5(**options: Any) -> Translation:
        return make(tokenizer, model_type="t5", generation={"task_specific_params": T5_PAIRS}, **options)

    task = t5(source_language="en", target_language="de")
    assert ids_of(task, "Hello") == wanted
    assert ids_of(t5(source_language="english", target_language="German"), "Hello") == wanted
    (encoded,) = task.encode([{"text": "Hello"}])
    assert not isinstance(encoded, RowError)
    params = encoded.items[0].generation
    assert params is not None
    assert (params.num_beams, params.max_new_tokens) == (4, 64)
    other = t5(source_language="en", target_language="es")
    assert ids_of(other, "Hello") == tokenizer("translate English to Spanish: Hello").input_ids
    assert ids_of(t5(prefix="zu Deutsch: "), "Hello") == tokenizer("zu Deutsch: Hello").input_ids
    with pytest.raises(SpecError, match=r"set task.source_language and .*it knows en_to_de, en_to_fr"):
        t5()
    with pytest.raises(SpecError, match=r"'Germn' is no language .* did you mean 'german'"):
        t5(source_language="en", target_language="Germn")


def test_nllb_codes() -> None:
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "▁": 4, "a": 5, "b": 6}
    tokenizer = NllbTokenizer(vocab=vocabulary, merges=[])
    codes = language_codes(tokenizer)
    assert len(codes) > 190
    task = make(tokenizer, model_type="m2m_100", source_language="eng_Latn", target_language="fra_Latn")
    assert forced_of(task) == codes["fra_Latn"]
    assert ids_of(task, "ab")[0] == codes["eng_Latn"]
    assert ids_of(task, "ab")[-1] == 2
    german = Translation.Options(source_language="deu_Latn", target_language="zho_Hans")
    assert ids_of(task, "ab", german)[0] == codes["deu_Latn"]
    assert forced_of(task, german) == codes["zho_Hans"]
    assert ids_of(task, "ab")[0] == codes["eng_Latn"]  # the job's own again
    with pytest.raises(SpecError, match=r"source_language 'en' is no language code of tiny"):
        make(tokenizer, source_language="en", target_language="fra_Latn")
    with pytest.raises(SpecError, match=r"target_language 'fra' .* did you mean 'fra_Latn'"):
        make(tokenizer, source_language="eng_Latn", target_language="fra")
    with pytest.raises(SpecError, match=r"set task.source_language to one of its codes, such as ace_Arab"):
        make(tokenizer)
    with pytest.raises(SpecError, match=r"set task.target_language"):
        make(tokenizer, source_language="eng_Latn")


def test_mbart_codes() -> None:
    tokenizer = MBart50Tokenizer()
    codes = language_codes(tokenizer)
    task = make(tokenizer, model_type="mbart", source_language="ro_RO", target_language="en_XX")
    assert ids_of(task, "a")[0] == codes["ro_RO"] == tokenizer.convert_tokens_to_ids("ro_RO")
    assert forced_of(task) == codes["en_XX"]
    with pytest.raises(SpecError, match="did you mean 'de_DE'"):
        make(tokenizer, source_language="de", target_language="en_XX")
    tuned = make(tokenizer, generation={"decoder_start_token_id": codes["ro_RO"]}, source_language="en_XX")
    assert forced_of(tuned) is None
    forced = make(tokenizer, generation={"forced_bos_token_id": codes["fr_XX"]}, source_language="en_XX")
    assert forced_of(forced) == codes["fr_XX"]


def test_m2m100_codes_of_a_tokenizer_without_a_fast_one(sentence_model: Path) -> None:
    path = sentence_model.parent / "m2m.json"
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *pieces_of(sentence_model)]
    path.write_text(json.dumps({token: index for index, token in enumerate(tokens)}), encoding="utf-8")
    tokenizer = M2M100Tokenizer(vocab_file=str(path), spm_file=str(sentence_model))
    task = make(tokenizer, model_type="m2m_100", source_language="en", target_language="fr")
    french = Translation.Options(source_language="fr", target_language="de")
    for _ in range(2):
        assert ids_of(task)[0] == tokenizer.get_lang_id("en")
        assert ids_of(task, options=french)[0] == tokenizer.get_lang_id("fr")
    assert forced_of(task) == tokenizer.get_lang_id("fr")
    assert forced_of(task, french) == tokenizer.get_lang_id("de")


def test_models_without_languages() -> None:
    task = make(tokenizer_of("gpt2"), model_type="bart", prefix="to French: ")
    assert ids_of(task, "Hi") == tokenizer_of("gpt2")("to French: Hi").input_ids
    with pytest.raises(SpecError, match=r"tiny \(bart\) has no language codes: leave out"):
        make(tokenizer_of("gpt2"), model_type="bart", target_language="fr")


def test_metrics_are_bleu_and_chrf() -> None:
    task = make(tokenizer_of("gpt2"), model_type="bart")
    assert task.metrics(list(SENTENCES), list(SENTENCES)) == pytest.approx({"bleu": 100.0, "chrf": 100.0})
    worse = task.metrics([text.replace("the", "a") for text in SENTENCES], [[text, "x"] for text in SENTENCES])
    assert 0 < worse["bleu"] < 100


def test_rows_that_lose_text_are_known_without_a_fast_tokenizer(sentence_model: Path) -> None:
    text = "The cat sat on the mat. " * 3
    task = make(marian_tokenizer(sentence_model))
    num_tokens = len(ids_of(task, text))
    assert num_tokens < 64
    for limit, cut in ((num_tokens, False), (num_tokens - 1, True)):
        options = Translation.Options(max_length=limit)
        assert [each.truncated for each in task.encode([{"text": text}], options) if isinstance(each, Encoded)] == [cut]
