"""The detailed result of a text generation, its Arrow type, and the same while it comes. Knows tokenizers; not rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfray.tasks.answers import Answer, AnswerParser, Delta, answer_of
from hfray.tasks.streaming import StreamDecoder, cut_at_stop, decode_text
from hfray.tasks.tool_calls import Texts, ToolFormat
from hfray.types import Output

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class AnswerCarry:
    """What decoding a row's sequences needs back."""

    stop: tuple[str, ...]
    many: bool
    """Whether the result is a list."""
    before: str = ""
    """Text that the result begins with."""
    detailed: bool = False
    num_prompt_tokens: int = 0
    eos_token_ids: tuple[int, ...] = ()
    is_chat: bool = False
    tools: ToolFormat | None = None
    """How calls are written, where the row has tools."""
    texts: Texts = frozenset()
    """Which arguments of calls are texts."""
    in_reasoning: bool = False

    def parser(self) -> AnswerParser | None:
        """None: the answer is text and nothing else."""
        if not self.is_chat:
            return None
        return AnswerParser(self.tools, texts=self.texts, in_reasoning=self.in_reasoning)


def detail_type() -> pa.DataType:
    """The Arrow type of one detailed result."""
    import pyarrow as pa

    score = [("id", pa.int32()), ("token", pa.string()), ("logprob", pa.float64())]
    top = pa.list_(pa.struct(score))
    return pa.struct(
        [
            ("text", pa.string()),
            ("finish", pa.string()),
            ("reasoning", pa.string()),
            ("tool_calls", pa.list_(pa.struct([("name", pa.string()), ("arguments", pa.string())]))),
            ("prompt_tokens", pa.int64()),
            ("completion_tokens", pa.int64()),
            ("logprobs", pa.list_(pa.struct([*score, ("top", top)]))),
        ]
    )


def detailed(tokenizer: Any, output: Output, carry: AnswerCarry, keep: Mapping[int, str]) -> dict[str, Any]:
    """text: what the model says. finish: "stop", "length", or "tool_calls" where it stopped to call tools. reasoning:
    what it thought before; null without any. completion_tokens counts a token that ends the text, logprobs leaves it
    out. keep: special tokens that the parts of an answer are told by."""
    tokens = output["tokens"]
    text = cut_at_stop(decode_text(tokenizer, tokens, keep if carry.is_chat else {}), carry.stop)
    parser = carry.parser()
    answer = Answer(text, None, ()) if parser is None else answer_of([*parser.push(text), *parser.finish()])
    finish = "tool_calls" if answer.tool_calls and output["finish"] == "stop" else output["finish"]
    return {
        "text": carry.before + answer.content,
        "finish": finish,
        "reasoning": answer.reasoning,
        "tool_calls": [{"name": call.name, "arguments": call.arguments} for call in answer.tool_calls],
        "prompt_tokens": carry.num_prompt_tokens,
        "completion_tokens": len(tokens),
        "logprobs": _logprobs(tokenizer, output, carry) if "logprobs" in output else None,
    }


def _logprobs(tokenizer: Any, output: Output, carry: AnswerCarry) -> list[dict[str, Any]]:
    tokens = output["tokens"]
    num = len(tokens) - (len(tokens) > 0 and int(tokens[-1]) in carry.eos_token_ids)
    texts: dict[int, str] = {}
    return [
        token_score(
            tokenizer,
            int(tokens[place]),
            output["logprobs"][place],
            zip(output["top_ids"][place], output["top_logprobs"][place], strict=True),
            texts,
        )
        for place in range(num)
    ]


def token_score(
    tokenizer: Any, token: int, logprob: Any, top: Iterable[tuple[Any, Any]], texts: dict[int, str]
) -> dict[str, Any]:
    """One entry of `logprobs`; its id is the token's number in the vocabulary. top: (token, log-probability) of the
    likeliest. texts: of tokens seen before."""

    def score(token: int, logprob: Any) -> dict[str, Any]:
        if token not in texts:
            texts[token] = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
        return {"id": token, "token": texts[token], "logprob": float(logprob)}

    return {**score(token, logprob), "top": [score(int(each), value) for each, value in top]}


class AnswerStream:
    """The parts of one sequence as its tokens come. Not thread-safe."""

    def __init__(self, decoder: StreamDecoder, parser: AnswerParser | None) -> None:
        self._decoder = decoder
        self._parser = parser

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found; nothing comes after it."""
        return self._decoder.stopped

    def push(self, tokens: Sequence[int]) -> list[Delta]:
        return self._parts(self._decoder.push(tokens))

    def finish(self) -> list[Delta]:
        """The rest, after the last token."""
        found = self._parts(self._decoder.finish())
        return found if self._parser is None else [*found, *self._parser.finish()]

    def _parts(self, text: str) -> list[Delta]:
        if self._parser is not None:
            return self._parser.push(text)
        return [Delta(text)] if text else []
