"""The process of one model: requests in, answers out. Knows predictors and the event loop; not HTTP, not protocols, not
which gateway asks. Ray Serve calls it, and it knows nothing of Ray, so that it can be run without a cluster.

What arrives together is encoded together and goes into the engine, which makes its own batches of all that waits; the
event loop only waits.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError

from hfray.engines.base import Engine
from hfray.errors import RowError, SpecError
from hfray.inference.model_use import CheckedModel, load_use
from hfray.inference.predictor import Predictor
from hfray.serving.coder import TOO_SLOW
from hfray.serving.health import Health
from hfray.serving.messages import Ask, Piece, Reply, Use
from hfray.serving.streams import stream_pieces
from hfray.serving.templates import NUM_WORKERS, TemplateProcess
from hfray.spec.endpoint import EndpointSpec
from hfray.tasks import TASKS
from hfray.tasks.base import TaskOptions
from hfray.tasks.chat_prompts import ChatPrompts
from hfray.tasks.openai.responses import FAULTS
from hfray.types import Encoded, Result, Row

STARTS_S = 600.0
"""How long the first input may take: kernels are compiled, pages are read."""
_LOGGED = FAULTS - {"Cancelled"} | {TOO_SLOW}
_log = logging.getLogger(__name__)


class Replica:
    """Holds one engine, and a predictor for each use of it."""

    def __init__(self, checked: CheckedModel, spec: EndpointSpec) -> None:
        """Loads the model and lets it answer an input of its own. Raises SpecError or EngineError."""
        import torch

        torch.set_num_threads(max(1, int(spec.resources.cpus)))
        ready = load_use(checked, device_share=min(1.0, spec.resources.gpus) or 1.0, online=True)
        self.engine: Engine = ready.engine
        has_chat = bool(getattr(ready.processor.tokenizer, "chat_template", None))
        self._predictors: dict[Use, Predictor] = {
            use: Predictor(
                TASKS[options.name](options, ready.processor, ready.info),
                ready.engine,
                adapters=tuple(checked.adapters),
            )
            for use, options in uses_of(checked.task, has_chat=has_chat).items()
        }
        chat = self._predictors.get("chat")
        self._chats: ChatPrompts | None = None if chat is None else getattr(chat.task, "chats", None)
        self._templates = None if self._chats is None else TemplateProcess(self._chats.special_tokens)
        self._renderers = ThreadPoolExecutor(NUM_WORKERS, thread_name_prefix="hfray-templates")
        self.num_ongoing = 0
        """Requests that are being answered."""
        self.health = Health(ready.engine, self._predictors["default"], stuck_s=spec.health_timeout_s)
        self._coder = self.health.coder
        if spec.warm_up:
            self.health.canary(STARTS_S)

    async def predict(self, asks: Sequence[Ask]) -> list[Reply]:
        """One reply per request, in order; what is wrong with a request is in the results of its rows.

        Raises EngineError when the model or its device is lost.
        """
        replies: list[Reply | None] = [None] * len(asks)
        self.num_ongoing += len(asks)
        try:
            await asyncio.gather(*(self._answer(asks, numbers, replies) for numbers in _alike(asks)))
        finally:
            self.num_ongoing -= len(asks)
        return [reply for reply in replies if reply is not None]

    async def stream(self, ask: Ask) -> AsyncIterator[list[Piece]]:
        """The texts of a request's one row, in pieces, as they come. Raises RowError for a request that has none,
        EngineError when the model is lost; a reader that stops early cancels the texts."""
        self.num_ongoing += 1
        try:
            predictor, options = self._settled(ask)
            salts = [ask.salt] * len(ask.rows)
            rows = await self._rendered(ask, options)
            (encoded,) = await self._coder.run(_encode, predictor, rows, options, salts)
            if isinstance(encoded, RowError):
                raise encoded
            async for pieces in stream_pieces(predictor.task, self.engine, encoded, lambda: self.num_ongoing):
                yield pieces
            self.health.saw((None,))
        except SpecError as error:
            raise _invalid(str(error)) from None
        except RowError as error:
            self.health.saw((error,))
            _log_fault(ask, error)
            raise
        finally:
            self.num_ongoing -= 1

    async def _answer(self, asks: Sequence[Ask], numbers: Sequence[int], replies: list[Reply | None]) -> None:
        """The replies of requests with the same options."""
        started = time.monotonic()
        positions = [place for number in numbers for place in range(len(asks[number].rows))]
        salts = [asks[number].salt for number in numbers for _ in asks[number].rows]
        try:
            predictor, options = self._settled(asks[numbers[0]])
            rendered = await asyncio.gather(*(self._rendered(asks[number], options) for number in numbers))
            rows = [row for each in rendered for row in each]
            pending = await self._coder.run(predictor.submit, rows, positions, options, salts)
            await asyncio.wrap_future(pending.future)  # one that is cancelled here takes its texts out of the engine
            results: list[Result | RowError] = await self._coder.run(predictor.finish, pending)
        except (RowError, SpecError) as error:
            refused = error if isinstance(error, RowError) else _invalid(str(error))
            if refused.type == TOO_SLOW and len(numbers) > 1:  # one of them may be to blame for it
                await asyncio.gather(*(self._answer(asks, [number], replies) for number in numbers))
                return
            for number in numbers:
                _log_fault(asks[number], refused)
                replies[number] = Reply((refused,) * len(asks[number].rows))
            return
        self.health.saw(results)
        counts = pending.row_tokens()
        start = 0
        for number in numbers:
            own = slice(start, start + len(asks[number].rows))
            start = own.stop
            for result in results[own]:
                _log_fault(asks[number], result)
            replies[number] = Reply(
                results=tuple(results[own]),
                num_tokens=sum(read for read, _ in counts[own]),
                num_new_tokens=sum(new for _, new in counts[own]),
                compute_s=time.monotonic() - started,
            )

    def _settled(self, ask: Ask) -> tuple[Predictor, TaskOptions | None]:
        """Whose request it is, and its options; None for the endpoint's own. Raises RowError."""
        predictor = self._predictors.get(ask.use)
        if predictor is None:
            raise RowError("the model has no chat template, so it takes prompts only", type="NoChat")
        if not ask.changes:
            return predictor, None
        base = predictor.task.options
        try:
            return predictor, type(base).model_validate({**base.model_dump(), **ask.changes})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = f"{first['loc'][0]}: " if first["loc"] else ""  # what follows are members of a union
            raise _invalid(where + first["msg"].removeprefix("Value error, ")) from None

    async def _rendered(self, ask: Ask, options: TaskOptions | None) -> Sequence[Row]:
        """Chats as prompts. Not in the thread that encodes: a template that does not end must hold up nobody else."""
        if ask.use != "chat":
            return ask.rows
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            *(loop.run_in_executor(self._renderers, self._with_prompt, row, options) for row in ask.rows)
        )

    def _with_prompt(self, row: Row, options: TaskOptions | None) -> Row:
        if self._chats is None or self._templates is None:
            return row
        settled = self._predictors["chat"].task.options if options is None else options
        try:
            return {**row, "messages": self._chats.prompt(row, settled, self._templates.render)}
        except RowError as error:
            return {**row, "messages": error}

    def close(self) -> None:
        self.engine.close()
        self._coder.close()
        self._renderers.shutdown(wait=False, cancel_futures=True)
        if self._templates is not None:
            self._templates.close()


def uses_of(options: TaskOptions, *, has_chat: bool) -> dict[Use, TaskOptions]:
    """The task options of each use that requests may make of a model."""
    if options.name != "text-generation":
        return {"default": options}
    plain = options.model_copy(update={"input": "prompt", "continue_final_message": False})
    if not has_chat:
        return {"default": plain}
    return {"default": plain, "chat": options.model_copy(update={"input": "messages", "return_full_text": False})}


def _encode(predictor: Predictor, rows: Sequence[Row], options: Any, salts: Sequence[str]) -> list[Encoded | RowError]:
    return predictor.encode(rows, None, options, salts)


def _log_fault(ask: Ask, result: Result | RowError) -> None:
    """What an operator must see, by the id that its sender has. No message: it may quote the request."""
    if isinstance(result, RowError) and result.type in _LOGGED:
        trace = f" of trace {ask.trace_id}" if ask.trace_id else ""
        _log.warning("request %s%s: %s", ask.request_id, trace, result.type)


def _alike(asks: Sequence[Ask]) -> list[list[int]]:
    """Numbers of the requests that can be encoded in one call."""
    groups: dict[str, list[int]] = {}
    for number, ask in enumerate(asks):
        changes = json.dumps(ask.changes, sort_keys=True, default=str) if ask.changes else ""
        groups.setdefault(f"{ask.use}{changes}", []).append(number)
    return list(groups.values())


def _invalid(message: str) -> RowError:
    return RowError(message, type="InvalidRequest")
