from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, ByT5Tokenizer, EsmTokenizer, PreTrainedTokenizerFast

from hfray.errors import SpecError
from hfray.models.source import ModelSource, resolve_source
from hfray.models.tokenizers import (
    TokenizerFacts,
    fingerprint,
    load_tokenizer,
    safe_max_length,
    save_tokenizer,
    template_hash,
)
from tests.hub_stand_in import Repo, point_at, serve_hub
from tests.models.support import letter_tokenizer

TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}\n"


def merging_tokenizer(merges: tuple[tuple[str, str], ...] = (("a", "b"), ("b", "c"))) -> PreTrainedTokenizerFast:
    vocab = {token: i for i, token in enumerate(["<pad>", "</s>", "a", "b", "c", "ab", "bc"])}
    backend = Tokenizer(models.BPE(vocab, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")


def write(tokenizer: Any, folder: Path) -> Path:
    for name, content in save_tokenizer(tokenizer).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def reloaded(tokenizer: Any, folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(write(tokenizer, folder))


@pytest.fixture
def tokenizer_only(tmp_path: Path) -> Path:
    """A folder without config.json and weights."""
    return write(letter_tokenizer(), tmp_path / "alone")


def test_a_folder_with_nothing_but_a_tokenizer(tokenizer_only: Path) -> None:
    expected = letter_tokenizer()("A cat, a dog.").input_ids
    source = resolve_source(str(tokenizer_only), None, kind="tokenizer")
    assert load_tokenizer(source)("A cat, a dog.").input_ids == expected
    (tokenizer_only / "tokenizer_config.json").unlink()
    source = resolve_source(str(tokenizer_only), None, kind="tokenizer")
    assert load_tokenizer(source)("A cat, a dog.").input_ids == expected


def test_a_hub_repository_with_nothing_but_a_tokenizer(
    tokenizer_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 39 + "1"
    with serve_hub() as hub:
        hub.repos["org/alone"] = Repo({commit: tokenizer_only}, {"main": commit})
        point_at(monkeypatch, hub.endpoint, tmp_path / "cache")
        monkeypatch.setattr(
            "transformers.utils.hub._hf_api", None
        )  # keeps the address of the first hub it was asked for
        loaded = load_tokenizer(resolve_source("org/alone", None, kind="tokenizer"))
    assert fingerprint(loaded) == fingerprint(letter_tokenizer())
    assert save_tokenizer(loaded) == save_tokenizer(letter_tokenizer())


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"vocab.txt": "[PAD]\na\nb"}, "no file says which tokenizer it has; .* save_pretrained"),
        ({"config.json": '{"model_type": "bert"}'}, "it has no tokenizer files"),
        ({"tokenizer.json": "{"}, "its tokenizer cannot be used"),
        (
            {"tokenizer_config.json": '{"auto_map": {"AutoTokenizer": ["canary.T", null]}}', "canary.py": "1/0"},
            "its tokenizer needs code from the repository, which hfray does not run",
        ),
    ],
)
def test_what_cannot_be_loaded(files: dict[str, str], problem: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(SpecError, match=problem):
        load_tokenizer(ModelSource("mine", str(tmp_path), None, tuple(sorted(files)), {"content": ""}))


def renormalise(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)


def end_otherwise(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A $B", special_tokens=[("[CLS]", 2)]
    )


def split_otherwise(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()


CHANGES: dict[str, Callable[[Any], object]] = {
    "a token": lambda tokenizer: tokenizer.add_tokens("zz"),
    "how a token strips": lambda tokenizer: tokenizer.add_tokens(AddedToken("[MASK]", lstrip=True, special=True)),
    "the normaliser": renormalise,
    "the pre-tokenizer": split_otherwise,
    "the post-processor": end_otherwise,
    "a special token": lambda tokenizer: setattr(tokenizer, "mask_token", "[UNK]"),
    "the inputs": lambda tokenizer: setattr(tokenizer, "model_input_names", ["input_ids"]),
    "the side of padding": lambda tokenizer: setattr(tokenizer, "padding_side", "left"),
    "splitting special tokens": lambda tokenizer: setattr(tokenizer, "split_special_tokens", True),
}
USES: dict[str, Callable[[Any], object]] = {
    "cutting": lambda tokenizer: tokenizer("a b c d e", truncation=True, max_length=4),
    "padding": lambda tokenizer: tokenizer("a", padding="max_length", max_length=9),
    "a limit": lambda tokenizer: setattr(tokenizer, "model_max_length", 7),
    "a template": lambda tokenizer: setattr(tokenizer, "chat_template", TEMPLATE),
    "the side of cutting": lambda tokenizer: setattr(tokenizer, "truncation_side", "left"),
    "tidier decoding": lambda tokenizer: setattr(tokenizer, "clean_up_tokenization_spaces", True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_ids_changes_the_fingerprint(change: str, tmp_path: Path) -> None:
    tokenizer = letter_tokenizer()
    before = fingerprint(tokenizer)
    CHANGES[change](tokenizer)
    assert fingerprint(tokenizer) != before


def test_a_merge_changes_the_fingerprint() -> None:
    one, other = merging_tokenizer(), merging_tokenizer((("b", "c"), ("a", "b")))
    assert one("abc").input_ids != other("abc").input_ids
    assert one.get_vocab() == other.get_vocab()
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("use", USES)
def test_what_changes_no_id_does_not(use: str) -> None:
    tokenizer = letter_tokenizer()
    before = fingerprint(tokenizer)
    USES[use](tokenizer)
    assert fingerprint(tokenizer) == before


def test_the_fingerprint_only_reads() -> None:
    tokenizer = letter_tokenizer()
    tokenizer("a", truncation=True, padding="max_length", max_length=9)
    state = tokenizer.backend_tokenizer.to_str()
    fingerprint(tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == state


@pytest.mark.parametrize("make", [letter_tokenizer, merging_tokenizer])
def test_a_saved_tokenizer_is_the_same(make: Callable[[], Any], tmp_path: Path) -> None:
    tokenizer = make()
    tokenizer.add_tokens(["naïve", "\n\n"])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|turn|>"]})
    again = reloaded(tokenizer, tmp_path)
    assert fingerprint(again) == fingerprint(tokenizer)
    text = "a naïve <|turn|> abc\n\nb"
    assert again(text).input_ids == tokenizer(text).input_ids


@pytest.mark.slow
def test_another_process_finds_the_same_fingerprint(tokenizer_only: Path) -> None:
    code = (
        "import sys; from transformers import AutoTokenizer; from hfray.models.tokenizers import fingerprint; "
        "print(fingerprint(AutoTokenizer.from_pretrained(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tokenizer_only)], capture_output=True, text=True)
    assert done.stdout.strip() == fingerprint(letter_tokenizer()), done.stderr


def test_the_fingerprint_that_written_tokens_carry() -> None:
    """Another value here makes training refuse all tokens that were made before."""
    assert fingerprint(merging_tokenizer()) == "6b168063e13680ff13e243905ff6f1f5342b4681f1d840519231ace66fc1e69e"


REAL = ("all-MiniLM-L6-v2", "clip", "distilbert-base-uncased", "phi-3-mini", "t5-small")


@pytest.mark.slow
def test_real_tokenizers(shared_data: Path, tmp_path: Path) -> None:
    found = {}
    for name in REAL:
        tokenizer = load_tokenizer(resolve_source(str(shared_data / "tokenizers" / name), None, kind="tokenizer"))
        found[name] = fingerprint(tokenizer)
        again = reloaded(tokenizer, tmp_path / name)
        assert fingerprint(again) == found[name], name
        assert save_tokenizer(again) == save_tokenizer(tokenizer), name
        assert again("Hello, wörld!\n 12").input_ids == tokenizer("Hello, wörld!\n 12").input_ids
        assert template_hash(again) == template_hash(tokenizer)
        for content in save_tokenizer(tokenizer).values():
            assert str(shared_data).encode() not in content
    assert len(set(found.values())) == len(REAL)
    assert template_hash(again) is None  # t5-small
    assert template_hash(AutoTokenizer.from_pretrained(tmp_path / "phi-3-mini")) is not None


def esm(folder: Path, letters: str) -> Any:
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["<cls>", "<pad>", "<eos>", "<unk>", *letters, "<mask>"]))
    return EsmTokenizer(str(folder / "vocab.txt"))


def test_tokenizers_written_in_python(tmp_path: Path) -> None:
    tokenizers = {
        "bytes": ByT5Tokenizer(),
        "fewer extra ids": ByT5Tokenizer(extra_ids=3),
        "letters": esm(tmp_path / "a", "LAG"),
        "other letters": esm(tmp_path / "b", "LGA"),
    }
    assert len({fingerprint(each) for each in tokenizers.values()}) == 4
    for name, tokenizer in tokenizers.items():
        before = fingerprint(tokenizer)
        tokenizer("LAG", truncation=True, max_length=3)
        tokenizer.model_max_length, tokenizer.chat_template = 100, TEMPLATE
        assert fingerprint(tokenizer) == before
        again = reloaded(tokenizer, tmp_path / name)
        assert again.chat_template == TEMPLATE
        assert fingerprint(again) == before, name
        assert save_tokenizer(again) == save_tokenizer(tokenizer), name
    assert fingerprint(esm(tmp_path / "c", "LAG")) == fingerprint(tokenizers["letters"])


def test_saved_files_do_not_depend_on_place_or_use(tmp_path: Path) -> None:
    tokenizer = letter_tokenizer()
    tokenizer.chat_template = TEMPLATE
    files = save_tokenizer(tokenizer)
    assert sorted(files) == list(files) == ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
    for place in ("one", "another/deeper"):
        again = reloaded(tokenizer, tmp_path / place)
        again("a b c", truncation=True, padding="max_length", max_length=4)
        assert save_tokenizer(again) == files
        assert again("a b c d e f").input_ids == tokenizer("a b c d e f").input_ids
        # What the last call set is as it was.
        again("a b c", truncation=True, padding="max_length", max_length=4)
        state = again.backend_tokenizer.truncation, again.backend_tokenizer.padding
        save_tokenizer(again)
        assert (again.backend_tokenizer.truncation, again.backend_tokenizer.padding) == state
        assert state[0]["max_length"] == 4
    config = json.loads(files["tokenizer_config.json"])
    assert not {"name_or_path", "is_local", "local_files_only"} & set(config)
    assert json.loads(files["tokenizer.json"])["truncation"] is None


@pytest.mark.parametrize(
    ("template", "other"),
    [
        (TEMPLATE, TEMPLATE.rstrip()),
        ({"default": TEMPLATE, "tool_use": "{{ 1 }}"}, {"default": TEMPLATE, "tool_use": "{{ 2 }}"}),
    ],
)
def test_a_template_has_a_hash(template: Any, other: Any, tmp_path: Path) -> None:
    tokenizer = letter_tokenizer()
    assert template_hash(tokenizer) is None
    tokenizer.chat_template = template
    first = template_hash(tokenizer)
    again = reloaded(tokenizer, tmp_path)
    assert again.chat_template == template
    assert template_hash(again) == first
    tokenizer.chat_template = other
    assert template_hash(tokenizer) not in (None, first)


def test_named_templates_have_no_order() -> None:
    one, other = letter_tokenizer(), letter_tokenizer()
    one.chat_template, other.chat_template = {"a": "{{ 1 }}", "b": "{{ 2 }}"}, {"b": "{{ 2 }}", "a": "{{ 1 }}"}
    assert template_hash(one) == template_hash(other)


@pytest.mark.parametrize(("stated", "limit"), [(512, 512), (int(1e30), None), (1e30, None), (0, None), (None, None)])
def test_limits(stated: Any, limit: int | None) -> None:
    tokenizer = letter_tokenizer()
    tokenizer.model_max_length = stated
    assert safe_max_length(tokenizer) == limit


def test_facts_travel_as_json() -> None:
    facts = TokenizerFacts.of(merging_tokenizer(), "org/name")
    assert (facts.name, facts.vocab_size) == ("org/name", 7)
    assert (facts.pad_token_id, facts.eos_token_id, facts.bos_token_id) == (0, 1, None)
    record = json.loads(json.dumps(facts.as_dict()))
    assert TokenizerFacts.from_dict(record) == facts
    assert TokenizerFacts.from_dict({**record, "of a later version": 1}) == facts
    with pytest.raises(KeyError, match="fingerprint"):
        TokenizerFacts.from_dict({"name": "org/name"})


def test_the_size_is_what_an_embedding_needs() -> None:
    """Ids may have holes, so that there are fewer tokens than rows."""
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 9}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert len(tokenizer) == 2
    assert TokenizerFacts.of(tokenizer, "holes").vocab_size == 10


def test_the_same_tokenizer_is_accepted(tmp_path: Path) -> None:
    tokenizer = letter_tokenizer()
    tokenizer.chat_template = TEMPLATE
    again = reloaded(tokenizer, tmp_path)
    for with_template in (False, True):
        TokenizerFacts.of(tokenizer, "one", with_template=with_template).check_same(again, "other")


def test_another_tokenizer_is_refused() -> None:
    facts = TokenizerFacts.of(letter_tokenizer(), "org/letters")
    other = merging_tokenizer()
    with pytest.raises(SpecError) as caught:
        facts.check_same(other, "org/merges")
    message = str(caught.value)
    for part in (
        "org/letters",
        facts.fingerprint[:16],
        "org/merges",
        fingerprint(other)[:16],
        "193 tokens",
        "7 tokens",
    ):
        assert part in message
    assert "run the tokenize job again" in message


def test_another_template_is_refused_where_tokens_depend_on_it() -> None:
    tokenizer = letter_tokenizer()
    tokenizer.chat_template = TEMPLATE
    with_template = TokenizerFacts.of(tokenizer, "org/chat", with_template=True)
    without = TokenizerFacts.of(tokenizer, "org/chat")
    for template, has in (("{{ 1 }}", "has another one"), (None, "has none")):
        tokenizer.chat_template = template
        without.check_same(tokenizer, "mine")
        with pytest.raises(SpecError, match=f"chat template of org/chat .* but mine {has}.*run the tokenize job again"):
            with_template.check_same(tokenizer, "mine")
