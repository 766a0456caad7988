"""Conversations, completions and preference pairs: the tokens of the template, and a loss of what the model writes."""

from __future__ import annotations

import gzip
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

from hfray.errors import RowError, SpecError
from hfray.tasks.features.chat import Chat
from hfray.tasks.features.conversation import ChatTemplate
from hfray.types import Examples
from tests.conftest import SHARED_DATA
from tests.models.support import letter_tokenizer
from tests.tasks.generation_support import tokenizer_of
from tests.tasks.support import roberta_tokenizer

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Qwen 3's: what the assistant thought is kept in the last turn only.
FORGETFUL = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think></think>' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Llama 3's: the system message alone is trimmed; a tool call has no content.
TOOLS = (
    "{% if tools %}{{ 'TOOLS ' + tools | tojson + '\n' }}{% endif %}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}{% if message.tool_calls %}{{ message.tool_calls | tojson }}"
    "{% else %}{{ message['content'] | trim }}{% endif %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TWO_TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi, who are you?"},
    {"role": "assistant", "content": "  A model’s answer.\n"},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes 👍"},
]


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "one two three four five six seven",
    "Say hello you",
    "Say: helmet",
    "Say it: good",
    "a b c",
    "goodness me good",
]


@lru_cache
def chatml(template: str | None = CHATML) -> Any:
    """A small byte-level BPE tokenizer that knows the words of CORPUS, with the tokens and a template of ChatML."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=2000,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=SPECIAL[0], additional_special_tokens=SPECIAL[1:]
    )
    tokenizer.chat_template = template
    return tokenizer


@lru_cache
def gpt2() -> Any:
    """GPT-2's tokenizer in the same way."""
    folder = SHARED_DATA / "tokenizers" / "gpt2"
    if not folder.is_dir():
        pytest.skip("no shared data: tokenizers/gpt2")
    tokenizer = GPT2Tokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        additional_special_tokens=SPECIAL[1:],
    )
    tokenizer.chat_template = CHATML
    return tokenizer


@lru_cache
def chat(tokenizer: Any, columns: str = "messages", max_length: int | None = None, **options: Any) -> Chat:
    """Over columns of texts, or of messages where a name ends in a star."""
    present = {
        each.rstrip("*"): MESSAGES if each in ("messages",) or each[-1] == "*" else pa.string()
        for each in columns.split()
    }
    return Chat(Chat.Options(**options), tokenizer, max_length, present)


def lists(examples: Examples, *names: str) -> list[list[list[int]]]:
    """For each example its lists."""
    columns: Any = examples.columns
    return [[columns[name][at].tolist() for name in names] for at in range(len(examples.rows))]


def learned(tokenizer: Any, examples: Examples, at: int = 0) -> str:
    columns: Any = examples.columns
    labels = columns["labels"][at]
    assert ((labels == -100) | (labels == columns["input_ids"][at])).all()
    return str(tokenizer.decode(labels[labels != -100]))


class Slow:
    """A tokenizer without a Rust backend."""

    eos_token = None
    all_special_tokens = ()


def ids_of(tokenizer: Any, messages: list[dict[str, Any]], **kwargs: Any) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(messages, **kwargs)["input_ids"]
    return ids


def conversations(shared_data: Path, count: int) -> list[list[dict[str, str]]]:
    lines = (shared_data / "oasst_validation" / "validation.jsonl").read_text("utf-8").splitlines()[:count]
    rows = [json.loads(line) for line in lines]
    return [
        [
            {"role": "user", "content": "\n".join(filter(None, (row["context"], row["instruction"])))},
            {"role": "assistant", "content": row["response"]},
        ]
        for row in rows
        if row["instruction"].strip() and row["response"].strip()
    ]


# Conversations.


@pytest.mark.slow
def test_real_conversations_have_the_tokens_of_apply_chat_template(shared_data: Path) -> None:
    phi = tokenizer_of("phi-3-mini")
    chats = conversations(shared_data, 120)
    assert len(chats) > 100
    examples = chat(phi).encode([{"messages": messages} for messages in chats])
    assert not examples.errors
    for messages, (ids, labels) in zip(chats, lists(examples, "input_ids", "labels"), strict=True):
        assert ids == ids_of(phi, messages)
        header = ids_of(phi, messages[:1], add_generation_prompt=True)
        assert labels == [-100] * len(header) + ids[len(header) :]
        assert phi.convert_ids_to_tokens(labels[-2:]) == ["<|end|>", "<|endoftext|>"]


@pytest.mark.slow
def test_many_real_turns_are_learned_and_nothing_else(shared_data: Path) -> None:
    chats = conversations(shared_data, 60)
    chats = [first + second for first, second in zip(chats[:20], chats[20:], strict=False)]
    for end, tokenizer in (("<|im_end|>", gpt2()), ("<|end|>", tokenizer_of("phi-3-mini"))):
        examples = chat(tokenizer).encode([{"messages": messages} for messages in chats])
        assert lists(examples, "input_ids") == [[ids_of(tokenizer, messages)] for messages in chats]
        for at, messages in enumerate(chats):
            expected = "".join(f"{messages[turn]['content']}{end}" for turn in (1, 3))
            text = learned(tokenizer, examples, at).removesuffix("<|endoftext|>")
            if end == "<|end|>":  # Phi's tokens swallow white space beside them, and decoding adds some
                text, expected = "".join(text.split()), "".join(expected.split())
            assert text == expected


def test_the_loss_is_of_each_assistant_turn_to_its_last_token() -> None:
    tokenizer = chatml()
    row = {"messages": TWO_TURNS}
    first, second = "  A model’s answer.\n<|im_end|>", "Yes 👍<|im_end|>"
    for loss, expected in (("assistant", first + second), ("last", second)):
        examples = chat(tokenizer, loss=loss).encode([row])
        assert learned(tokenizer, examples) == expected
        ((ids, labels),) = lists(examples, "input_ids", "labels")
        assert ids == ids_of(tokenizer, TWO_TURNS)
        assert labels[-1] == -100  # the newline that follows the last turn
    ((ids, labels),) = lists(chat(tokenizer, loss="all").encode([row]), "input_ids", "labels")
    assert labels == ids == ids_of(tokenizer, TWO_TURNS)


def test_a_template_with_generation_marks_says_itself_what_is_learned() -> None:
    tokenizer = chatml()
    options = {"chat_template": MARKED}
    expected = tokenizer.apply_chat_template(
        TWO_TURNS, chat_template=MARKED, return_dict=True, return_assistant_tokens_mask=True
    )
    ((ids, labels),) = lists(chat(tokenizer, **options).encode([{"messages": TWO_TURNS}]), "input_ids", "labels")
    assert ids == expected["input_ids"]
    assert [int(label != -100) for label in labels] == expected["assistant_masks"]
    assert learned(tokenizer, chat(tokenizer, loss="last", **options).encode([{"messages": TWO_TURNS}])) == (
        "Yes 👍<|im_end|>"
    )
    completion = {"prompt": TWO_TURNS[:4], "completion": TWO_TURNS[4:]}
    pairs = chat(tokenizer, "prompt* completion*", **options).encode([completion])
    assert learned(tokenizer, pairs) == "Yes 👍<|im_end|>"
    # With marks a template may begin with the assistant.
    begins = chat(tokenizer, **options).encode([{"messages": TWO_TURNS[2:]}])
    assert learned(tokenizer, begins) == "  A model’s answer.\n<|im_end|>Yes 👍<|im_end|>"


def test_a_template_that_rewrites_history_fails_its_row_and_says_so() -> None:
    tokenizer = chatml(FORGETFUL)
    one_turn = TWO_TURNS[:3]
    examples = chat(tokenizer).encode([{"messages": one_turn}, {"messages": TWO_TURNS}, {"messages": one_turn}])
    assert examples.rows.tolist() == [0, 2]
    assert examples.errors[1].type == "ChatTemplate"
    assert "rewrites what came before" in examples.errors[1].message
    last = chat(tokenizer, loss="last").encode([{"messages": TWO_TURNS}])
    assert learned(tokenizer, last) == "<think></think>Yes 👍<|im_end|>"


def test_tools_and_calls_go_to_the_template() -> None:
    tokenizer = chatml(TOOLS)
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": None}}}
    messages = [
        {"role": "user", "content": "1 + 1?", "tool_calls": None},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_calls": None},
        {"role": "assistant", "content": "It is 2.", "tool_calls": None},
    ]
    tools = [{"type": "function", "function": {"name": "add", "description": None}}]
    features = chat(tokenizer)
    examples = features.encode(
        [
            {"messages": messages, "tools": tools},
            {"messages": messages, "tools": json.dumps(tools)},
            {"messages": np.array(messages, object), "tools": None},
            {"messages": messages, "tools": "not JSON"},
            {"messages": messages, "tools": "1"},
        ]
    )
    assert {index: error.type for index, error in examples.errors.items()} == {3: "BadTools", 4: "BadTools"}
    texts = [tokenizer.decode(ids) for (ids,) in lists(examples, "input_ids")]
    assert texts[0] == texts[1]
    assert texts[0].startswith('TOOLS [{"type": "function", "function": {"name": "add"}}]\n<|im_start|>user')
    assert texts[2].startswith("<|im_start|>user")
    shown = '[{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]<|im_end|>'
    assert learned(tokenizer, examples) == f"{shown}It is 2.<|im_end|>"
    assert messages[0]["tool_calls"] is None  # rows are not written into


def test_a_bad_conversation_fails_alone() -> None:
    good = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

    def with_content(content: Any) -> list[dict[str, Any]]:
        return [good[0], {"role": "assistant", "content": content}]

    bad: list[tuple[Any, str]] = [
        (None, "NullText"),
        ("text", "BadMessages"),
        ([1], "BadMessages"),
        ([{"role": "robot", "content": "a"}], "BadMessages"),
        ([{"content": "a"}], "BadMessages"),
        ([], "EmptyText"),
        (with_content(None), "NullText"),
        (with_content(3), "WrongType"),
        (with_content(["a"]), "WrongType"),
        (with_content("\ud800"), "InvalidText"),
        (with_content("\x00"), "InvalidText"),
        (with_content("x" * 200), "TextTooLong"),
        ([good[0]], "NothingToLearn"),
        ([good[1], *good], "ChatTemplate"),  # begins with the assistant
        ([{"role": "tool", "content": "boom"}, *good], "ChatTemplate"),
    ]
    template = CHATML.replace(
        "{% for", "{% if messages[0]['content'] == 'boom' %}{{ raise_exception('too bad') }}{% endif %}{% for"
    )
    features = chat(chatml(), max_chars=100, chat_template=template)
    rows = [each for value, _ in bad for each in ({"messages": good}, {"messages": value})]
    examples = features.encode([*rows, {"other": 1}, {"messages": good}])
    assert [examples.errors[index].type for index in range(1, len(rows), 2)] == [kind for _, kind in bad]
    assert examples.errors[len(rows)].type == "MissingColumn"
    assert "too bad" in examples.errors[len(rows) - 1].message
    assert examples.rows.tolist() == [*range(0, len(rows), 2), len(rows) + 1]
    assert {tuple(ids) for (ids,) in lists(examples, "input_ids")} == {tuple(ids_of(chatml(), good))}


def test_a_content_that_max_chars_cut_is_counted() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "word " * 20}]
    examples = chat(chatml(), max_chars=30, over_max_chars="truncate").encode([{"messages": messages}])
    # 30 characters of the answer, and one of the question: over it together.
    assert examples.errors[0].type == "TextTooLong"
    pair = {"prompt": "a\n", "completion": "word " * 20}
    cut = chat(chatml(), "prompt completion", max_chars=30, over_max_chars="truncate").encode(
        [pair, {**pair, "completion": "b"}]
    )
    assert cut.truncated == (0,)
    assert learned(chatml(), cut) == "word " * 6 + "<|endoftext|>"


# Prompts with completions.


@pytest.mark.slow
def test_real_completions_are_learned_and_end(shared_data: Path) -> None:
    tokenizer = gpt2()
    lines = (shared_data / "gsm8k" / "test.jsonl").read_text("utf-8").splitlines()[:200]
    rows = [json.loads(line) for line in lines]
    examples = chat(tokenizer, "prompt completion").encode(
        [{"prompt": f"{row['question']}\n", "completion": row["answer"]} for row in rows]
    )
    assert not examples.errors
    for row, (ids, labels) in zip(rows, lists(examples, "input_ids", "labels"), strict=True):
        assert ids == [*tokenizer(f"{row['question']}\n{row['answer']}")["input_ids"], tokenizer.eos_token_id]
        kept = [label for label in labels if label != -100]
        assert labels == [-100] * (len(ids) - len(kept)) + kept
        assert tokenizer.decode(kept) == f"{row['answer']}<|endoftext|>"
    everything = chat(tokenizer, "prompt completion", loss="all").encode([{"prompt": "a", "completion": " b"}])
    ((ids, labels),) = lists(everything, "input_ids", "labels")
    assert labels == ids


@pytest.mark.slow
def test_a_token_across_the_border_is_learned_and_special_tokens_are_told_by_their_side() -> None:
    small, t5, roberta = chatml(), tokenizer_of("t5-small"), roberta_tokenizer()
    row = {"prompt": "Say: hel", "completion": "lo you"}
    across = chat(small, "prompt completion").encode([row])
    assert learned(small, across) == " hello you<|endoftext|>"
    added = chat(t5, "prompt completion").encode([{"prompt": "Say: ", "completion": "one two"}])
    assert learned(t5, added) == "one two</s>"
    assert lists(added, "input_ids") == [[t5("Say: one two")["input_ids"]]]
    both = chat(roberta, "prompt completion").encode([{"prompt": "Say:  ", "completion": "one two"}])
    assert learned(roberta, both).lstrip() == "one two</s>"
    assert lists(both, "input_ids") == [[roberta("Say:  one two")["input_ids"]]]


@pytest.mark.slow
def test_a_white_space_token_whose_offsets_are_trimmed_is_on_its_own_side() -> None:
    tokenizer = roberta_tokenizer()
    examples = chat(tokenizer, "prompt completion").encode([{"prompt": "a  ", "completion": "    b   "}])
    assert learned(tokenizer, examples) == "    b   </s>"


@pytest.mark.slow
def test_messages_as_prompt_and_completion_are_one_conversation(shared_data: Path) -> None:
    tokenizer = gpt2()
    chats = conversations(shared_data, 20)
    rows = [{"prompt": each[:1], "completion": each[1:]} for each in chats]
    together = [{"messages": each} for each in chats]
    names = "input_ids", "labels"
    assert lists(chat(tokenizer, "prompt* completion*").encode(rows), *names) == lists(
        chat(tokenizer).encode(together), *names
    )
    turns = {"prompt": TWO_TURNS[:3], "completion": TWO_TURNS[3:]}
    examples = chat(tokenizer, "prompt* completion*").encode([turns])
    assert learned(tokenizer, examples) == "Yes 👍<|im_end|>"  # not the turn in the prompt
    mixed = chat(tokenizer, "prompt* completion*").encode([{"prompt": "text", "completion": TWO_TURNS[4:]}, turns])
    assert mixed.errors[0].type == "WrongType"
    assert mixed.rows.tolist() == [1]


# Preference pairs.


def pair_of(examples: Examples, at: int = 0) -> list[list[int]]:
    return lists(examples, "prompt_input_ids", "chosen_input_ids", "rejected_input_ids")[at]


@pytest.mark.slow
def test_real_pairs_are_their_texts_with_the_common_beginning_once(shared_data: Path) -> None:
    tokenizer = gpt2()
    with gzip.open(shared_data / "hh_rlhf_harmless" / "test.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(next(lines)) for _ in range(300)]
    rows = [row for row in rows if row["chosen"] != row["rejected"]]
    examples = chat(tokenizer, "chosen rejected").encode(rows)
    assert not examples.errors
    for at, row in enumerate(rows):
        prompt, chosen, rejected = pair_of(examples, at)
        assert prompt + chosen == [*tokenizer(row["chosen"])["input_ids"], tokenizer.eos_token_id]
        assert prompt + rejected == [*tokenizer(row["rejected"])["input_ids"], tokenizer.eos_token_id]
        text = tokenizer.decode(prompt)
        assert row["chosen"].startswith(text)
        assert row["rejected"].startswith(text)
        # Nothing common is left out but a space, or a token that goes on differently.
        assert chosen[0] != rejected[0] or tokenizer.decode(chosen[0]).startswith(" ")


def test_a_pair_begins_after_its_prompt_column() -> None:
    tokenizer = chatml()
    row = {"prompt": "Say it:", "chosen": " good", "rejected": " goodness me"}
    prompt, chosen, rejected = pair_of(chat(tokenizer, "prompt chosen rejected").encode([row]))
    assert [tokenizer.decode(each) for each in (prompt, chosen, rejected)] == [
        "Say it:", " good<|endoftext|>", " goodness me<|endoftext|>",
    ]  # fmt: skip
    across = {"prompt": "Say hel", "chosen": "lo", "rejected": "met"}
    prompt, chosen, rejected = pair_of(chat(tokenizer, "prompt chosen rejected").encode([across]))
    assert tokenizer.decode(prompt) == "Say"
    assert prompt + chosen == [*tokenizer("Say hello")["input_ids"], tokenizer.eos_token_id]
    assert prompt + rejected == [*tokenizer("Say helmet")["input_ids"], tokenizer.eos_token_id]


@pytest.mark.parametrize(
    "answers", [("me", "you"), ("三", "四")]
)  # a token with the space before it, and a space alone
def test_a_common_space_goes_with_the_answers_as_in_trl(answers: tuple[str, str]) -> None:
    row = {"chosen": f"Q: who? A: {answers[0]}", "rejected": f"Q: who? A: {answers[1]}"}
    parts = [chatml().decode(each) for each in pair_of(chat(chatml(), "chosen rejected").encode([row]))]
    assert parts == ["Q: who? A:", *(f" {answer}<|endoftext|>" for answer in answers)]


@pytest.mark.slow
def test_a_prompt_that_its_answers_split_differently_ends_where_they_agree() -> None:
    tokenizer = gpt2()
    row = {"prompt": "Say abhor", "chosen": "ring", "rejected": "s"}
    texts = [f"{row['prompt']}{row[name]}" for name in ("chosen", "rejected")]
    assert [tokenizer.tokenize(text)[1] for text in texts] == ["Ġabhor", "Ġab"]
    prompt, chosen, rejected = pair_of(chat(tokenizer, "prompt chosen rejected").encode([row]))
    assert tokenizer.decode(prompt) == "Say"
    assert [prompt + answer[:-1] for answer in (chosen, rejected)] == tokenizer(texts)["input_ids"]


def test_pairs_of_conversations() -> None:
    tokenizer = chatml()
    other = {"role": "assistant", "content": "No."}
    full = {"chosen": TWO_TURNS, "rejected": [*TWO_TURNS[:4], other]}
    split = {"prompt": TWO_TURNS[:4], "chosen": TWO_TURNS[4:], "rejected": [other]}
    implicit = pair_of(chat(tokenizer, "chosen* rejected*").encode([full]))
    assert implicit == pair_of(chat(tokenizer, "prompt* chosen* rejected*").encode([split]))
    assert implicit[0] == ids_of(tokenizer, TWO_TURNS[:4], add_generation_prompt=True)
    assert [tokenizer.decode(each) for each in implicit[1:]] == ["Yes 👍<|im_end|>\n", "No.<|im_end|>\n"]


def test_a_bad_pair_fails_alone() -> None:
    tokenizer = chatml()
    good = {"chosen": "a b", "rejected": "a c"}
    bad: list[tuple[dict[str, Any], str]] = [
        ({"chosen": "a", "rejected": "a"}, "NothingToLearn"),
        ({"chosen": "a", "rejected": "b"}, "NoPrompt"),
        ({"chosen": None, "rejected": "b"}, "NullText"),
        ({"chosen": "a b", "rejected": 3}, "WrongType"),
        ({"chosen": "a b", "rejected": TWO_TURNS}, "WrongType"),
        ({"chosen": TWO_TURNS, "rejected": TWO_TURNS[:2]}, "NothingToLearn"),
        ({"chosen": TWO_TURNS, "rejected": TWO_TURNS[1:]}, "NoPrompt"),
        ({"chosen": "a"}, "MissingColumn"),
        ({"chosen": "\ud800", "rejected": "a"}, "InvalidText"),
        ({"chosen": "", "rejected": "a"}, "EmptyText"),
    ]
    rows = [each for row, _ in bad for each in (good, row)]
    examples = chat(tokenizer, "chosen rejected", chat_template=CHATML).encode([*rows, good])
    assert [examples.errors[index].type for index in range(1, len(rows), 2)] == [kind for _, kind in bad]
    assert examples.rows.tolist() == list(range(0, len(rows) + 1, 2))
    assert {str(lists(examples, name)) for name in ("prompt_input_ids",)} == {
        str([[tokenizer("a")["input_ids"]]] * (len(bad) + 1))
    }


# Lengths and packing.


@pytest.mark.parametrize("max_length", range(3, 16))
def test_an_example_over_max_length_is_cut_or_fails(max_length: int) -> None:
    tokenizer = chatml()
    row = {"prompt": "one two three four", "completion": " five six seven"}
    ids = [*tokenizer("one two three four five six seven")["input_ids"], tokenizer.eos_token_id]
    assert len(ids) == 8
    cut = chat(tokenizer, "prompt completion", max_length).encode([row])
    if max_length <= 4:
        assert cut.errors[0].type == "NothingToLearn"
        assert cut.truncated == ()
    else:
        assert lists(cut, "input_ids", "labels") == [[ids[:max_length], [*[-100] * 4, *ids[4:max_length]]]]
        assert cut.truncated == ((0,) if max_length < 8 else ())
    strict = chat(tokenizer, "prompt completion", max_length, truncation="error").encode([row])
    assert {index: error.type for index, error in strict.errors.items()} == ({0: "TooLong"} if max_length < 8 else {})


def test_a_first_token_is_never_learned() -> None:
    row = {"prompt": "o", "completion": "ne"}  # one token, which nothing predicts
    examples = chat(chatml(), "prompt completion", 1).encode([row])
    assert examples.errors[0].type == "NothingToLearn"
    assert learned(chatml(), chat(chatml(), "prompt completion", 2).encode([row])) == "one<|endoftext|>"


def test_a_pair_over_max_length_loses_the_ends_of_its_answers() -> None:
    tokenizer = chatml()
    row = {"prompt": "one two", "chosen": " three four five", "rejected": " six"}
    kept = {}
    for max_length in (2, 3, 4, 6):
        examples = chat(tokenizer, "prompt chosen rejected", max_length).encode([row])
        kept[max_length] = [len(part) for part in pair_of(examples)] if len(examples.rows) else examples.errors[0].type
        assert examples.truncated == ((0,) if max_length in (3, 4) else ())
    assert kept == {2: "NothingToLearn", 3: [2, 1, 1], 4: [2, 2, 2], 6: [2, 4, 2]}


def test_packed_examples_keep_their_labels() -> None:
    tokenizer = chatml()
    rows = [
        {"prompt": "one two", "completion": " three"},
        {"prompt": "a", "completion": " b c"},
        {"prompt": None, "completion": "x"},
    ]
    for packing in ("best_fit", "concatenate"):
        features = chat(tokenizer, "prompt completion", 10, packing=packing)
        assert features.packs
        examples = features.encode(rows)
        columns = features.pack(examples.columns)
        assert list(columns) == features.packed_schema().names
        eos = tokenizer.eos_token_id
        one, two, three, a, b, c = tokenizer("one two three")["input_ids"] + tokenizer("a b c")["input_ids"]
        assert columns["input_ids"].values.tolist() == [one, two, three, eos, a, b, c, eos, eos, eos]
        assert columns["labels"].values.tolist() == [-100, -100, three, eos, -100, b, c, eos, -100, -100]
        assert columns["position_ids"].values.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert not chat(tokenizer, "prompt completion").packs
    assert chat(tokenizer, "prompt completion").schema().names == ["input_ids", "labels"]
    assert chat(tokenizer, "chosen rejected").schema().names == [
        "prompt_input_ids", "chosen_input_ids", "rejected_input_ids",
    ]  # fmt: skip


# What the job says.


def test_the_columns_choose_the_form() -> None:
    options = Chat.Options()
    assert Chat.required_columns(options, {"messages", "id"}) == ("messages",)
    assert Chat.required_columns(options, {"prompt", "completion", "tools"}) == ("prompt", "completion")
    assert Chat.required_columns(options, {"prompt", "chosen", "rejected"}) == ("chosen", "rejected")
    with pytest.raises(SpecError, match=r"no form fits the columns prompt, text; .*completion: prompt and completion"):
        Chat.required_columns(options, {"text", "prompt"})
    both = {"messages", "prompt", "chosen", "rejected"}
    with pytest.raises(SpecError, match="fit messages and preference; say which with form"):
        Chat.required_columns(options, both)
    assert Chat.required_columns(Chat.Options(form="preference"), both) == ("chosen", "rejected")


def test_what_the_tokenizer_or_the_options_lack_is_an_error_of_the_spec() -> None:
    with pytest.raises(SpecError, match="no chat template"):
        chat(chatml(None))
    with pytest.raises(SpecError, match="no chat template"):
        chat(chatml(None), "chosen* rejected*")
    chat(chatml(None), chat_template=CHATML)
    chat(chatml(None), "chosen rejected")
    with pytest.raises(SpecError, match="chat_template, line 1: "):
        chat(chatml(), chat_template="{% for message in messages %}")
    with pytest.raises(SpecError, match="needs a fast tokenizer"):
        chat(Slow(), chat_template=CHATML)
    with pytest.raises(SpecError, match="no end-of-sequence token"):
        chat(letter_tokenizer(), "prompt completion")
    with pytest.raises(SpecError, match="cannot be packed"):
        chat(chatml(), "chosen rejected", 8, packing="best_fit")
    with pytest.raises(SpecError, match="packing: best_fit needs max_length"):
        chat(chatml(), packing="best_fit")


def test_nothing_gives_nothing() -> None:
    for columns in ("messages", "prompt completion", "chosen rejected"):
        features = chat(chatml(), columns)
        for rows in ([], [{}]):
            examples = features.encode(rows)
            assert {name: len(column) for name, column in examples.columns.items()} == dict.fromkeys(
                features.schema().names, 0
            )
            assert len(examples.errors) == len(rows)


def test_a_template_by_name_is_found() -> None:
    tokenizer = chatml.__wrapped__()  # not the one that other tests share
    tokenizer.chat_template = {"default": CHATML, "tool_use": TOOLS}
    template = ChatTemplate(tokenizer, None)
    turn = TWO_TURNS[:3]
    assert template.render(turn, None, "all").text.startswith("<|im_start|>system")
    assert template.render(turn, [{"a": 1}], "all").text.startswith('TOOLS [{"a": 1}]')
    with pytest.raises(RowError, match="no message with the role assistant"):
        template.render(turn[:2], None, "last")
