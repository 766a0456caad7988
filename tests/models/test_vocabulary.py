from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from hfray.errors import DataError, SpecError
from hfray.models import word_counts
from hfray.models.tokenizers import fingerprint, save_tokenizer, template_hash
from hfray.models.vocabulary import train_tokenizer
from hfray.tasks.features.tokenizer_options import TokenizerOptions

ALGORITHMS = ("byte-bpe", "bpe", "wordpiece", "unigram")
CHAT = [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "Well met"}]


def made_up_texts(num_texts: int = 300) -> list[str]:
    """Words of a made-up language, many of them as frequent as others, so that ties have to be broken."""
    draw = random.Random(7)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 7))) for _ in range(200)]
    return [" ".join(draw.choices(words, k=20)).capitalize() + ", it said." for _ in range(num_texts)]


def trained(algorithm: str, texts: Any = None, *, vocab_size: int = 400, **options: Any) -> Any:
    made = TokenizerOptions(algorithm=algorithm, vocab_size=vocab_size, **options)
    tokenizer, _ = train_tokenizer(made_up_texts() if texts is None else texts, made)
    return tokenizer


def reloaded(tokenizer: Any, folder: Path) -> Any:
    for name, content in save_tokenizer(tokenizer).items():
        (folder / name).write_bytes(content)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def byte_level() -> Any:
    return trained("byte-bpe")


@pytest.mark.parametrize(
    ("algorithm", "before", "after", "special"),
    [
        ("byte-bpe", [], [], ["<|pad|>", "<|endoftext|>"]),
        ("bpe", ["<s>"], [], ["<pad>", "<unk>", "<s>", "</s>"]),
        ("wordpiece", ["[CLS]"], ["[SEP]"], ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]),
        ("unigram", [], ["</s>"], ["<pad>", "<unk>", "<s>", "</s>"]),
    ],
)
def test_a_trained_tokenizer(
    algorithm: str, before: list[str], after: list[str], special: list[str], tmp_path: Path
) -> None:
    tokenizer = trained(algorithm, extra_special_tokens=("<|tool|>",), chat_template="chatml", max_length=77)
    again = reloaded(tokenizer, tmp_path)
    assert not (tmp_path / "config.json").exists()
    expected = [*special, "<|im_start|>", "<|im_end|>", "<|tool|>"]
    for each in (tokenizer, again):
        assert len(each) == 400
        assert sorted(each.get_vocab().values()) == list(range(400))
        assert each.convert_ids_to_tokens(range(len(expected))) == expected
        assert sorted(each.all_special_ids) == list(range(len(expected)))
        assert each.model_max_length == 77
        assert each.padding_side == "right"
        text = made_up_texts()[0]
        ids = each(text).input_ids
        tokens = each.convert_ids_to_tokens(ids)
        assert tokens[: len(before)] == before
        assert tokens[len(tokens) - len(after) :] == after
        assert len(ids) < len(text) / 1.4
        inner = each.decode(ids, skip_special_tokens=True)
        assert inner.replace(" ", "") == text.replace(" ", "") if algorithm == "wordpiece" else inner == text
        # A special token in the text is itself, whatever stands around it.
        assert expected.index("<|tool|>") in each("abc<|tool|>abc").input_ids
        assert ("token_type_ids" in each("a")) is (algorithm == "wordpiece")
        shown = each.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
        assert shown == (
            "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\nWell met<|im_end|>\n<|im_start|>assistant\n"
        )
    assert fingerprint(again) == fingerprint(tokenizer)
    assert template_hash(again) == template_hash(tokenizer)
    for text in (*made_up_texts(20), "Ünknown 日本 \n\t x", ""):
        assert again(text).input_ids == tokenizer(text).input_ids


def test_pairs_of_texts() -> None:
    tokenizer = trained("wordpiece")
    encoded = tokenizer("ab", "ab")
    length = len(tokenizer("ab", add_special_tokens=False).input_ids)
    assert encoded.token_type_ids == [0] * (length + 2) + [1] * (length + 1)
    assert [encoded.input_ids[0], encoded.input_ids[-1]] == [tokenizer.cls_token_id, tokenizer.sep_token_id]
    assert trained("unigram")("ab", "ab").input_ids.count(3) == 2  # an end after each


@settings(deadline=None)
@given(st.text(max_size=40))
def test_bytes_lose_nothing(byte_level: Any, text: str) -> None:
    assert byte_level.decode(byte_level(text).input_ids) == text


def test_bytes_lose_no_white_space_emoji_or_control_character(byte_level: Any) -> None:
    text = " \n\n\ta  b \r\n👩‍👩‍👧 don't \x00 \u00ad\u200b\ufeff naïve ."
    assert byte_level.decode(byte_level(text).input_ids) == text
    assert byte_level.unk_token is None


def test_the_assistant_is_marked(byte_level: Any) -> None:
    tokenizer = trained("byte-bpe", chat_template="chatml")
    encoded = tokenizer.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    said = [token for token, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(said) == "Well met<|im_end|>"


def test_roles_can_be_changed_and_taken_away(tmp_path: Path) -> None:
    tokenizer = reloaded(trained("bpe", special_tokens={"bos": None, "eos": "<|end|>", "mask": "<m>"}), tmp_path)
    assert tokenizer.bos_token is None
    assert tokenizer.convert_ids_to_tokens(range(4)) == ["<pad>", "<unk>", "<m>", "<|end|>"]
    assert (tokenizer.eos_token_id, tokenizer.mask_token_id) == (3, 2)
    assert tokenizer("ab").input_ids == tokenizer("ab", add_special_tokens=False).input_ids


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_lower_case(algorithm: str) -> None:
    tokenizer = trained(algorithm, ["Ab AB ab"] * 9, vocab_size=300, lowercase=True)
    assert tokenizer("AB").input_ids == tokenizer("ab").input_ids
    assert "A" not in tokenizer.get_vocab() or algorithm == "byte-bpe"


def test_bytes_are_learned_as_the_library_alone_does(byte_level: Any) -> None:
    """Counting words first changes nothing."""
    alone = Tokenizer(models.BPE())
    alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        min_frequency=2,
        special_tokens=["<|pad|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    alone.train_from_iterator(made_up_texts(), trainer)
    assert alone.get_vocab() == byte_level.get_vocab()


def test_pairs_must_be_frequent_enough() -> None:
    texts = ["abc"] * 3 + ["xyz"] * 2
    assert "xyz" in trained("byte-bpe", texts).get_vocab()
    vocab = trained("byte-bpe", texts, min_frequency=3).get_vocab()
    assert "abc" in vocab
    assert "xyz" not in vocab


def test_rare_characters_are_unknown() -> None:
    texts = ["abab cdcd"] * 500 + ["ab☃ab"]
    for algorithm in ("bpe", "wordpiece", "unigram"):
        kept = trained(algorithm, texts, character_coverage=1.0)
        assert "☃" in kept.get_vocab()
        assert kept.unk_token_id not in kept("ab☃ab").input_ids
        lost = trained(algorithm, texts, character_coverage=0.999)
        assert "☃" not in lost.get_vocab()
        assert lost("ab☃ab").input_ids.count(lost.unk_token_id) == 1


@pytest.mark.parametrize(("algorithm", "least"), [("bpe", 9), ("wordpiece", 13), ("unigram", 9)])
def test_a_vocabulary_too_small_for_the_characters(algorithm: str, least: int) -> None:
    """4 letters, for two of the algorithms a space, for WordPiece the letters once more."""
    texts = ["abcd bcda cdab dabc"] * 3
    assert len(trained(algorithm, texts, vocab_size=least)) == least
    with pytest.raises(
        SpecError, match=rf"mode.vocab_size: {least - 1} is too small .* need at least {least}, or a lower"
    ):
        trained(algorithm, texts, vocab_size=least - 1)


def test_a_small_corpus_gives_fewer_tokens() -> None:
    for algorithm in ALGORITHMS:
        assert len(trained(algorithm, ["ab ab"] * 3, vocab_size=5000)) < 300


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("texts", [[], ["", None, "\ud800"], [[]]])
def test_nothing_to_learn_from(algorithm: str, texts: list[Any]) -> None:
    with pytest.raises(DataError, match=r"there is nothing to train a tokenizer on: .* texts without a word"):
        trained(algorithm, texts)


def test_the_corpus_is_described() -> None:
    _, corpus = train_tokenizer(
        iter(["ab cd", None, ["ab", "\ud800", "x" * 11]]), TokenizerOptions(vocab_size=300, max_chars=10)
    )
    assert corpus == word_counts.Corpus(num_texts=2, num_skipped=3, num_chars=7, num_words=2)  # "ab" and " cd"


def test_a_broken_template_shows_before_anything_is_read() -> None:
    def texts() -> Any:
        pytest.fail("a text was read")
        yield ""

    with pytest.raises(SpecError, match=r"mode.chat_template: line 2: "):
        trained("byte-bpe", texts(), chat_template="{% for m in messages %}\n{{ m['content' }}{% endfor %}")


def test_a_template_may_ask_for_other_messages() -> None:
    template = "{{ raise_exception('the first message must be from the system') }}"
    assert trained("byte-bpe", chat_template=template).chat_template == template


def test_text_without_spaces_is_learned_too() -> None:
    draw = random.Random(1)
    text = "".join(draw.choices(["天地", "玄黄", "宇宙", "洪荒"], k=6000))
    for algorithm in ("bpe", "unigram"):
        tokenizer = trained(algorithm, [text], vocab_size=30)
        assert len(tokenizer(text).input_ids) < 6000


def test_words_that_look_like_special_tokens_change_nothing(tmp_path: Path) -> None:
    for algorithm in ("bpe", "wordpiece", "unigram"):
        tokenizer = trained(algorithm, [*made_up_texts(), *["<s> </s> [SEP] ## a##b"] * 400])
        assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
        again = reloaded(tokenizer, tmp_path)
        assert again("ab <s> ##").input_ids == tokenizer("ab <s> ##").input_ids


def test_a_special_token_that_could_be_learned_is_there_once() -> None:
    for algorithm in ALGORITHMS:
        tokenizer = trained(algorithm, ["abab cab abc"] * 9, vocab_size=300, extra_special_tokens=("ab",))
        assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
        pieces = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]  # Unigram's is a list
        assert len(pieces) == len(tokenizer)
        assert tokenizer.convert_tokens_to_ids("ab") in tokenizer("abab").input_ids


def test_a_corpus_too_large_to_count_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["abc abc ab zz"] * 1000
    whole = trained("bpe", texts)
    monkeypatch.setattr(word_counts, "MAX_CHARS_COUNTED", 500)
    assert fingerprint(trained("bpe", texts)) == fingerprint(whole)


def digest(tokenizer: Any) -> str:
    return hashlib.sha256(repr(save_tokenizer(tokenizer)).encode()).hexdigest()


PROGRAM = """
import sys
from tests.models.test_vocabulary import digest, trained
print(*(digest(trained(algorithm, vocab_size=300)) for algorithm in sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_same_texts_give_the_same_bytes_on_any_number_of_threads() -> None:
    """Other hash seeds, other numbers of threads, other processes: all that the libraries' own trainers depend on."""
    found = set()
    for threads in ("1", "2", "5"):
        environment = {
            **os.environ,
            "RAYON_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "true",
            "PYTHONHASHSEED": threads,
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *ALGORITHMS],
            capture_output=True,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert found == {" ".join(digest(trained(algorithm, vocab_size=300)) for algorithm in ALGORITHMS) + "\n"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_ties_are_always_broken_alike(algorithm: str) -> None:
    """Each training seeds its hash maps anew; of words as frequent as each other, an unseeded choice would show."""
    assert len({digest(trained(algorithm)) for _ in range(3)}) == 1


@pytest.mark.parametrize("algorithm", ["byte-bpe", "bpe", "wordpiece"])
def test_the_order_of_the_texts_does_not_count(algorithm: str) -> None:
    assert digest(trained(algorithm)) == digest(trained(algorithm, made_up_texts()[::-1]))


@pytest.fixture(scope="module")
def real_texts(shared_data: Path) -> list[str]:
    plays = (shared_data / "tinyshakespeare" / "input.txt").read_text("utf-8").split("\n\n")
    return plays + (shared_data / "wikitext2_raw" / "wiki.test.raw").read_text("utf-8").split("\n")


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_real_text(algorithm: str, real_texts: list[str], tmp_path: Path) -> None:
    tokenizer, corpus = train_tokenizer(
        iter(real_texts), TokenizerOptions(algorithm=algorithm, vocab_size=2000, chat_template="chatml")
    )
    assert (corpus.num_texts, corpus.num_skipped) == (len(real_texts), 0)
    assert corpus.num_chars == sum(map(len, real_texts))
    assert len(tokenizer) == 2000
    again = reloaded(tokenizer, tmp_path)
    assert fingerprint(again) == fingerprint(tokenizer)
    sample = [text for text in real_texts if text.strip()][::50]
    ids = again(sample).input_ids
    assert ids == tokenizer(sample).input_ids
    assert sum(len(text.encode()) for text in sample) / sum(map(len, ids)) > 2
    decoded = again.batch_decode(ids, skip_special_tokens=True)
    if algorithm == "byte-bpe":
        assert decoded == sample
    elif algorithm != "wordpiece":
        same = sum(mine == " ".join(text.split()) for mine, text in zip(decoded, sample, strict=True))
        assert same > 0.9 * len(sample)
    unknown = sum(each.count(again.unk_token_id) for each in ids)
    assert unknown < 0.002 * sum(map(len, ids))
    assert "<|im_start|>user\nHi there<|im_end|>\n" in again.apply_chat_template(CHAT, tokenize=False)
