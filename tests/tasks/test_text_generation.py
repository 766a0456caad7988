from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from transformers import GPT2Config, LlamaConfig, pipeline

from hfray.errors import RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor
from hfray.tasks.text_generation import TextGeneration
from hfray.types import Encoded
from tests.tasks.generation_support import answer, contexts, tokenizer_of
from tests.tasks.support import tiny_model, truncated

_MODELS: dict[str, Any] = {}


def model_of(name: str) -> Any:
    if name not in _MODELS:
        size = {"vocab_size": len(tokenizer_of(name)), "initializer_range": 0.3}
        config = (
            GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=256, bos_token_id=50256, eos_token_id=50256, **size)
            if name == "gpt2"
            else LlamaConfig(
                hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=256, bos_token_id=1, eos_token_id=32000, pad_token_id=32000, **size,
            )
        )  # fmt: skip
        _MODELS[name] = tiny_model("AutoModelForCausalLM", config)
    return _MODELS[name]


def make(name: str, *, info: dict[str, Any] | None = None, **options: Any) -> TextGeneration:
    fields = {"name": "tiny", "model_type": "llama", "max_length": 256, **(info or {})}
    task_options = TextGeneration.Options(**{"max_new_tokens": 8, **options})
    return TextGeneration(task_options, Processor(tokenizer=tokenizer_of(name)), ModelInfo(**fields))


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "今天天气怎么样？🙂"},
    {"role": "assistant", "content": "Schön."},
    {"role": "user", "content": "And tomorrow?"},
]


@pytest.mark.parametrize("name", ["gpt2", "phi-3-mini"])
@pytest.mark.slow
def test_greedy_text_is_that_of_transformers_pipeline(name: str) -> None:
    prompts = ["Hello", contexts("zh")[0][:60], "naïve café 🎉  two", "def f(x):\n\treturn", "a" * 150]
    model = model_of(name)
    reference = pipeline("text-generation", model=model, tokenizer=tokenizer_of(name), device="cpu")
    wanted = [
        reference(prompt, max_new_tokens=8, do_sample=False, return_full_text=False)[0]["generated_text"]
        for prompt in prompts
    ]
    rows = [{"prompt": prompt} for prompt in prompts]
    assert answer(make(name), model, rows) == wanted
    full = [prompt + text for prompt, text in zip(prompts, wanted, strict=True)]
    assert answer(make(name, return_full_text=True), model, rows) == full


def test_chat_is_that_of_transformers_pipeline() -> None:
    model, tokenizer = model_of("phi-3-mini"), tokenizer_of("phi-3-mini")
    reference = pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")
    (wanted,) = reference(CHAT, max_new_tokens=8, do_sample=False)
    assert answer(make("phi-3-mini", input="messages"), model, [{"messages": CHAT}]) == [
        wanted["generated_text"][-1]["content"]
    ]


def test_a_chat_has_the_ids_of_apply_chat_template() -> None:
    task = make("phi-3-mini", input="messages")
    (encoded,) = task.encode([{"messages": [{**message, "name": None} for message in CHAT]}])
    assert not isinstance(encoded, RowError)
    wanted = tokenizer_of("phi-3-mini").apply_chat_template(CHAT, add_generation_prompt=True, tokenize=True)
    assert encoded.items[0].inputs["input_ids"].tolist() == wanted["input_ids"]
    assert encoded.items[0].kind == "causal"


def test_which_column_is_read() -> None:
    assert TextGeneration.required_columns(TextGeneration.Options()) == ("prompt",)
    assert TextGeneration.required_columns(TextGeneration.Options(input="messages")) == ("messages",)
    with pytest.raises(SpecError, match="has no chat template"):
        make("gpt2", input="messages")
    with pytest.raises(ValidationError, match="return_full_text needs input: prompt"):
        TextGeneration.Options(input="messages", return_full_text=True)


@pytest.mark.parametrize(
    ("messages", "type_", "says"),
    [
        (None, "NullText", "messages is null"),
        ("hi", "BadMessages", "messages is str"),
        ({"role": "user", "content": "x"}, "BadMessages", "messages is dict"),
        (["hi"], "BadMessages", r"messages\[0\] is str"),
        ([{"role": "User", "content": "x"}], "BadMessages", r"messages\[0\].role is 'User'"),
        ([{"content": "x"}], "BadMessages", r"messages\[0\].role is None"),
        ([{"role": "user"}], "NullText", r"messages\[0\].content is null"),
        ([{"role": "user", "content": ["x"]}], "WrongType", r"messages\[0\].content is list"),
        ([{"role": "user", "content": "a\ud800"}], "InvalidText", "lone surrogate"),
        ([], "EmptyText", "no content"),
        ([{"role": "user", "content": " "}], "EmptyText", "no content"),
        ([{"role": "user", "content": "x" * 60}] * 2, "TextTooLong", "120 characters together, over max_chars 100"),
    ],
)
def test_bad_messages(messages: Any, type_: str, says: str) -> None:
    task = make("phi-3-mini", input="messages", max_chars=100)
    bad, good = task.encode([{"messages": messages}, {"messages": [{"role": "user", "content": "x"}]}])
    assert isinstance(bad, RowError)
    assert bad.type == type_
    with pytest.raises(RowError, match=says):
        raise bad
    assert not isinstance(good, RowError)


def test_a_template_that_refuses() -> None:
    import copy

    tokenizer = copy.copy(tokenizer_of("phi-3-mini"))
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    info = ModelInfo(name="tiny", model_type="llama")
    task = TextGeneration(TextGeneration.Options(input="messages"), Processor(tokenizer=tokenizer), info)
    (error,) = task.encode([{"messages": CHAT}])
    assert isinstance(error, RowError)
    assert error.type == "ChatTemplate"
    assert "roles must alternate" in error.message


def test_bad_prompts_fail_alone() -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": None}, {"prompt": ""}, {"prompt": " \n"}, {"prompt": 3}, {"prompt": "a\x00"}, {}, {"prompt": "fine"},
    ]  # fmt: skip
    found = answer(make("gpt2"), model_of("gpt2"), rows)
    assert [each.type for each in found[:-1]] == [
        "NullText", "EmptyText", "EmptyText", "WrongType", "InvalidText", "MissingColumn",
    ]  # fmt: skip
    assert isinstance(found[-1], str)


@pytest.mark.slow
def test_prompts_that_are_too_long() -> None:
    text = " ".join(contexts("en"))
    (error,) = make("gpt2").encode([{"prompt": text}])
    assert isinstance(error, RowError)
    assert error.type == "PromptTooLong"
    assert "with max_new_tokens 8 there is room for 248" in error.message
    (cut,) = make("gpt2", truncation="left").encode([{"prompt": text}])
    assert not isinstance(cut, RowError)
    assert cut.items[0].inputs["input_ids"].tolist() == tokenizer_of("gpt2")(text).input_ids[-248:]
    (tighter,) = make("gpt2", truncation="left", max_length=10).encode([{"prompt": text}])
    assert not isinstance(tighter, RowError)
    assert tighter.items[0].num_tokens == 10
    (text_only,) = answer(make("gpt2", truncation="left"), model_of("gpt2"), [{"prompt": text}])
    assert isinstance(text_only, str)


@pytest.mark.slow
def test_cutting_keeps_the_first_token_that_the_model_was_trained_with() -> None:
    import copy

    tokenizer = copy.deepcopy(tokenizer_of("phi-3-mini"))
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    info = ModelInfo(name="tiny", model_type="llama", max_length=64)
    options = TextGeneration.Options(input="messages", truncation="left", max_new_tokens=44)
    (encoded,) = TextGeneration(options, Processor(tokenizer=tokenizer), info).encode(
        [{"messages": [{"role": "user", "content": contexts("en")[0]}]}]
    )
    assert not isinstance(encoded, RowError)
    ids = encoded.items[0].inputs["input_ids"].tolist()
    assert len(ids) == 20
    assert ids[0] == tokenizer.bos_token_id
    assert ids[1:] == tokenizer(contexts("en")[0], add_special_tokens=False).input_ids[-19:]


@pytest.mark.slow
def test_several_sequences_per_row() -> None:
    task = make("gpt2", num_return_sequences=3, temperature=1.0, seed=11)
    assert task.result_type() == pa.list_(pa.string())
    assert make("gpt2").result_type() == pa.string()
    (encoded,) = task.encode([{"prompt": "Hello"}])
    assert not isinstance(encoded, RowError)
    assert [item.generation.seed for item in encoded.items if item.generation] == [11] * 3
    (texts,) = answer(task, model_of("gpt2"), [{"prompt": "Hello"}])
    assert len(texts) == 3
    assert task.summarize(texts).score == pytest.approx(sum(map(len, texts)) / 3)


@pytest.mark.slow
def test_stop_strings_end_and_cut_the_text() -> None:
    model = model_of("phi-3-mini")
    rows = [{"prompt": "Hello"}, {"prompt": "and so"}]
    free = answer(make("phi-3-mini", max_new_tokens=12), model, rows)
    stop = free[0][len(free[0]) // 2 :][:4]
    task = make("phi-3-mini", max_new_tokens=12, stop=[stop])
    assert answer(task, model, rows) == [free[0][: free[0].find(stop)], free[1].split(stop)[0]]
    (encoded,) = task.encode(rows[:1])
    assert not isinstance(encoded, RowError)
    decoder = task.stream_decoder(encoded.carry)
    tokens = tokenizer_of("phi-3-mini")(free[0], add_special_tokens=False).input_ids
    assert decoder.push(tokens) + decoder.finish() == free[0][: free[0].find(stop)]


def test_options_of_a_request() -> None:
    task = make("gpt2")
    rows = [{"prompt": "Hello"}]
    short = answer(task, model_of("gpt2"), rows, TextGeneration.Options(max_new_tokens=2))
    assert answer(task, model_of("gpt2"), rows)[0].startswith(short[0])
    with pytest.raises(SpecError, match="max_new_tokens"):
        task.encode(rows, TextGeneration.Options(max_new_tokens=1000))


def test_encoder_decoders_are_refused() -> None:
    with pytest.raises(SpecError, match="use text2text-generation"):
        make("gpt2", info={"is_encoder_decoder": True})


def test_metrics() -> None:
    assert make("gpt2").metrics([" a", "b"], ["a", "c"]) == {"exact_match": 0.5}


@pytest.mark.slow
def test_a_tokenizer_that_is_used_by_others_is_left_as_it_was() -> None:
    tokenizer = tokenizer_of("gpt2")
    before = tokenizer.backend_tokenizer.to_str()
    with torch.inference_mode():
        answer(make("gpt2", truncation="left", max_length=5), model_of("gpt2"), [{"prompt": "one two three " * 9}])
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.slow
def test_rows_that_lose_text_are_known() -> None:
    prompt = contexts("en")[0]
    num_tokens = len(tokenizer_of("gpt2")(prompt).input_ids)
    for limit, cut in ((num_tokens, False), (num_tokens - 1, True)):
        task = make("gpt2", info={"max_length": 1024}, truncation="left", max_length=limit)
        assert truncated(task, {"prompt": prompt}) == [cut]
    short: dict[str, Any] = {"max_chars": 20, "over_max_chars": "truncate"}
    assert truncated(make("gpt2", **short), *({"prompt": "x" * num} for num in (20, 21))) == [False, True]
    chats = [{"messages": [{"role": "user", "content": "x" * num}]} for num in (20, 21)]
    assert truncated(make("phi-3-mini", input="messages", **short), *chats) == [False, True]


def params_of(encoded: Any) -> Any:
    assert not isinstance(encoded, RowError), encoded
    return encoded.items[0].generation


def test_a_row_sets_what_the_job_lets_it_set() -> None:
    task = make(
        "gpt2",
        temperature=0.5,
        seed=3,
        stop=["x"],
        row_options=["max_new_tokens", "temperature", "stop", "seed", "top_k"],
    )
    assert TextGeneration.required_columns(task.options)[0] == "prompt"
    assert "temperature" in TextGeneration.required_columns(task.options)
    own = {
        "prompt": "a",
        "max_new_tokens": 2.0,
        "temperature": 1.5,
        "stop": ["y", "z"],
        "seed": 9,
        "top_k": 4,
        "top_p": 0.1,
    }
    nulls = {"prompt": "a", "max_new_tokens": None, "temperature": None, "stop": None, "seed": None}
    encoded = task.encode([own, nulls, {"prompt": "a"}])
    assert [isinstance(each, Encoded) and each.own_places for each in encoded] == [((0, 0),), None, None]
    first, second, third = map(params_of, encoded)
    assert (first.max_new_tokens, first.temperature, first.seed, first.top_k) == (2, 1.5, 9, 4)
    assert first.top_p == 1.0, "the job does not let rows set it"
    assert first.stop.strings == ("y", "z")
    assert second == third
    assert (second.max_new_tokens, second.temperature, second.seed, second.stop.strings) == (8, 0.5, 3, ("x",))


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens: Input should be greater than or equal to 1"),
        ({"max_new_tokens": "many"}, "max_new_tokens: Input should be a valid integer"),
        ({"max_new_tokens": 1000}, "max_new_tokens 1000 is too much"),
        ({"num_return_sequences": 2}, "num_return_sequences above 1 needs a temperature"),
    ],
)
def test_an_option_that_a_row_cannot_set_is_the_rows_error(own: dict[str, Any], says: str) -> None:
    task = make("gpt2", row_options=["max_new_tokens", "num_return_sequences"])
    bad, good = task.encode([{"prompt": "a", **own}, {"prompt": "a"}])
    assert isinstance(bad, RowError)
    assert bad.type == "BadOption"
    assert says in bad.message
    assert not isinstance(good, RowError)


def test_the_type_of_the_result_is_the_jobs_not_the_rows() -> None:
    assert make("gpt2", row_options=["num_return_sequences"]).result_type() == pa.list_(pa.string())
    assert pa.types.is_struct(make("gpt2", row_options=["logprobs"]).result_type())
    assert pa.types.is_struct(make("gpt2", logprobs=0).result_type())
    task = make("gpt2", temperature=1.0, row_options=["num_return_sequences", "max_new_tokens"])
    rows = [{"prompt": "Hello", "num_return_sequences": 3}, {"prompt": "Hello", "max_new_tokens": 2}]
    assert [len(answer(task, model_of("gpt2"), [row])[0]) for row in rows] == [3, 1]


def test_tokens_that_end_a_text() -> None:
    free = answer(make("gpt2"), model_of("gpt2"), [{"prompt": "Hello"}])[0]
    third = tokenizer_of("gpt2")(free).input_ids[2]
    task = make("gpt2", stop_token_ids=[third], details=True)
    (result,) = answer(task, model_of("gpt2"), [{"prompt": "Hello"}])
    assert (result["completion_tokens"], result["finish"]) == (3, "stop")
    assert free.startswith(result["text"])


def test_options_that_do_not_go_together() -> None:
    with pytest.raises(ValidationError, match="continue_final_message needs input: messages"):
        TextGeneration.Options(continue_final_message=True)
    with pytest.raises(ValidationError, match="row_options"):
        TextGeneration.Options(row_options=["max_length"])
