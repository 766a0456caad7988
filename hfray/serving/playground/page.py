"""The page itself: fields, what fills them when a model is chosen, and what happens on Run. Knows Gradio; what a task
shows and asks is `shapes.py`'s.

Models come and go: the page reads them when it is loaded. Text that is written is shown as it comes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

import gradio as gr

from hfray.serving.errors import RequestError
from hfray.serving.front import Front
from hfray.serving.keys_file import Key
from hfray.serving.messages import Card
from hfray.serving.playground import views, writing
from hfray.serving.playground.inside import Inside
from hfray.serving.playground.look import look
from hfray.serving.playground.shapes import SHAPES, Filled, curl
from hfray.serving.playground.writing import Sampling

_HERE = files(__package__)
_ONLY = {"queue": True, "api_visibility": "private", "show_progress": "hidden"}
MAX_TOKENS = 131_072
"""Until a model is chosen."""


class Page:
    """Gradio's blocks and what they do."""

    def __init__(self, front: Front, inside: Inside) -> None:
        self._front = front
        self._inside = inside
        self.theme = look()
        self.css = _HERE.joinpath("style.css").read_text("utf-8")
        with gr.Blocks(title="Playground", analytics_enabled=False) as self.blocks:
            self._lay_out()

    def _lay_out(self) -> None:
        self.head = gr.HTML(views.head(None))
        self.model = gr.Dropdown([], label="Model", filterable=True, elem_id="model")
        # The routes judge the name. A page that stays open while its gateway is replaced knows choices of before.
        self.model.preprocess = lambda payload: payload if isinstance(payload, str) else None
        self.about = gr.HTML("", elem_id="about")
        self.chat = gr.Chatbot(
            visible=False, show_label=False, height=400, buttons=["copy"], elem_id="chat", latex_delimiters=[],
            placeholder="<p class='hf-none'>Say something.</p>", feedback_options=None,
        )  # fmt: skip
        self.text = gr.Textbox(visible=False, elem_id="text", lines=4, max_lines=16)
        self.second = gr.Textbox(visible=False, elem_id="second", lines=4, max_lines=16)
        self.image = gr.HTML(
            "", visible=False, elem_id="image", html_template=_asset("drop.html"), css_template="",
            js_on_load=_asset("drop.js"), apply_default_css=False,
        )  # fmt: skip
        self.labels = gr.Textbox(visible=False, elem_id="labels", lines=1, max_lines=4)
        with gr.Row(visible=False) as self.languages:
            self.source = gr.Textbox(label="From", placeholder="the model's word for the language", min_width=200)
            self.target = gr.Textbox(label="To", placeholder="the model's word for the language", min_width=200)
        with gr.Accordion("Sampling", open=False, visible=False, elem_id="sampling") as self.sampling:
            self.max_tokens = gr.Slider(1, MAX_TOKENS, 1, step=1, label="Most tokens")
            self.temperature = gr.Slider(0, 2, 0, step=0.05, label="Temperature, 0 takes the likeliest token")
            self.top_p = gr.Slider(0.01, 1, 1, step=0.01, label="Top p, draws from the likeliest tokens only")
        with gr.Row(elem_id="buttons"):
            self.run = gr.Button("Run", variant="primary", visible=False, elem_id="run", min_width=120, scale=0)
            self.stop = gr.Button("Stop", visible=False, elem_id="stop", min_width=120, scale=0)
            self.clear = gr.Button("New chat", visible=False, elem_id="clear", min_width=120, scale=0)
        self.result = gr.HTML("", elem_id="result")
        self.command = gr.HTML("", elem_id="command")
        self.said = gr.State([], time_to_live=3600)
        self._connect()

    def _connect(self) -> None:
        shown = [
            self.about, self.chat, self.text, self.second, self.image, self.labels, self.languages, self.sampling,
            self.max_tokens, self.temperature, self.top_p, self.run, self.clear, self.result, self.command, self.said,
        ]  # fmt: skip
        filled = [
            self.model, self.text, self.second, self.labels, self.source, self.target, self.image, self.max_tokens,
            self.temperature, self.top_p, self.said,
        ]  # fmt: skip
        out = [self.result, self.command, self.chat, self.said, self.text, self.stop, self.run]
        self.blocks.load(self._load, None, [self.head, self.model, *shown], **_ONLY)
        self.model.input(self._choose, [self.model], shown, **_ONLY)
        running = gr.on([self.run.click, self.text.submit], self._run, filled, out, **_ONLY)
        self.stop.click(self._stopped, None, [self.stop, self.run], cancels=[running], **_ONLY)
        self.clear.click(lambda: ([], [], "", ""), None, [self.chat, self.said, self.result, self.command], **_ONLY)

    # -- what is shown

    def _load(self, request: gr.Request) -> list[Any]:
        key = _key(request)
        names = [
            name if adapter is None else f"{name}:{adapter}"
            for name, lane in sorted(self._front.directory.lanes.items())
            if key is None or key.allows(name)
            for adapter in (None, *lane.card.adapters)
        ]
        first = names[0] if names else None
        return [
            views.head(None if key is None else key.id),
            gr.update(choices=names, value=first),
            *self._choose(first),
        ]

    def _choose(self, name: str | None) -> list[Any]:
        """For each part of the page, how it is for this model. What was typed or dropped stays, so that one input can
        be tried on several models; and Gradio applies the parts one after another, so a value would come after what a
        quick reader has typed into a field that is there already."""
        card = self._card(name)
        shape = SHAPES.get(card.task) if card is not None else None
        if card is None or shape is None:
            text = (
                "There is no model here." if name is None else "This model is not here any more; load the page again."
            )
            return [views.note(text), *[gr.update(visible=False)] * 11, gr.update(visible=False), "", "", []]
        chats = card.has_chat
        writes = card.task == "text-generation"
        ranges = writing.ranges(card) if writes else {}
        own = card.options.get("candidate_labels") or ()
        return [
            views.about(card, shape.does if not chats else "Chats."),
            gr.update(visible=chats, value=[]),
            gr.update(**_chat_field() if chats else _field(shape.text)),
            gr.update(**_field(shape.second)),
            gr.update(visible=shape.has_image),
            gr.update(
                visible=shape.has_labels,
                label="Labels, with commas between them",
                placeholder=", ".join(own) or "cat, dog, bird",
            ),
            gr.update(visible=shape.has_languages),
            gr.update(visible=writes),
            *[
                gr.update(minimum=each.least, maximum=each.most, value=each.value, visible=True)
                for each in (ranges[name] for name in ("max_tokens", "temperature", "top_p") if writes)
            ],
            *[gr.update()] * (0 if writes else 3),
            gr.update(visible=True, value="Send" if chats else shape.run),
            gr.update(visible=chats),
            "",
            "",
            [],
        ]

    def _card(self, name: str | None) -> Card | None:
        lanes = self._front.directory.lanes
        lane = lanes.get(name or "") or lanes.get((name or "").rpartition(":")[0])
        return None if lane is None else lane.card

    # -- what is done

    async def _run(
        self,
        name: str | None,
        text: str,
        second: str,
        labels: str,
        source: str,
        target: str,
        image: str,
        max_tokens: float,
        temperature: float,
        top_p: float,
        said: list[dict[str, str]],
        request: gr.Request,
    ) -> AsyncIterator[dict[Any, Any]]:
        card = self._card(name)
        if card is None or name is None:
            yield {self.result: views.refusal("This model is not here any more; load the page again.")}
            return
        filled = Filled(
            text or "", second or "", labels or "", source or "", target or "", image if isinstance(image, str) else ""
        )
        sampling = Sampling(int(max_tokens), float(temperature), float(top_p))
        try:
            if card.has_chat:
                steps = self._chat(name, filled.text, said, sampling, request)
            elif card.task == "text-generation":
                steps = self._write(name, filled.text, sampling, request)
            else:
                steps = self._ask(name, card, filled, request)
            async for step in steps:
                yield step
        except RequestError as error:
            yield {self.result: views.refusal(error.message), **self._idle()}

    async def _ask(self, name: str, card: Card, filled: Filled, request: gr.Request) -> AsyncIterator[dict[Any, Any]]:
        shape = SHAPES[card.task]
        body, path = shape.body(filled, card), f"/models/{name}"
        yield {self.command: self._curl(request, path, body)}
        answer = await self._inside.ask(self._key(request), path, body)
        yield {self.result: shape.view(filled, answer)}

    async def _write(
        self, name: str, prompt: str, sampling: Sampling, request: gr.Request
    ) -> AsyncIterator[dict[Any, Any]]:
        body = writing.completion_body(name, prompt, sampling)
        yield {self.command: self._curl(request, writing.COMPLETION, body), **self._busy()}
        written = ""
        async for event in self._inside.stream(self._key(request), writing.COMPLETION, body):
            written += writing.piece(event)[0]
            yield {self.result: views.writing(prompt, written, ended=False)}
        yield {self.result: views.writing(prompt, written, ended=True), **self._idle()}

    async def _chat(
        self, name: str, text: str, said: list[dict[str, str]], sampling: Sampling, request: gr.Request
    ) -> AsyncIterator[dict[Any, Any]]:
        if not text.strip():
            return
        asked = [*said, {"role": "user", "content": text}]
        body = writing.chat_body(name, asked, sampling)
        command = self._curl(request, writing.CHAT, body)
        yield {self.chat: asked, self.text: "", self.result: "", self.command: command, **self._busy()}
        content = reasoning = ""
        try:
            async for event in self._inside.stream(self._key(request), writing.CHAT, body):
                more, thought = writing.piece(event)
                content, reasoning = content + more, reasoning + thought
                answered = [*asked, {"role": "assistant", "content": content}]
                yield {self.chat: _shown(answered, reasoning), self.said: answered}
        except RequestError as error:
            yield {self.result: views.refusal(error.message), self.text: text, self.chat: said, **self._idle()}
            return
        yield self._idle()

    def _busy(self) -> dict[Any, Any]:
        return {self.stop: gr.update(visible=True), self.run: gr.update(interactive=False)}

    def _idle(self) -> dict[Any, Any]:
        return {self.stop: gr.update(visible=False), self.run: gr.update(interactive=True)}

    def _stopped(self) -> tuple[Any, Any]:
        return gr.update(visible=False), gr.update(interactive=True)

    def _curl(self, request: gr.Request, path: str, body: dict[str, Any]) -> str:
        address = f"{request.request.url.scheme}://{request.headers['host']}"
        return views.code(curl(address, path, body, with_key=_key(request) is not None))

    def _key(self, request: gr.Request) -> Key | None:
        return _key(request)


def _key(request: gr.Request) -> Key | None:
    """Whose request it is, as the door has found."""
    key: Key | None = request.request.scope["state"]["key"]
    return key


def _shown(messages: list[dict[str, str]], reasoning: str) -> list[dict[str, Any]]:
    if not reasoning:
        return list(messages)
    thought = {"role": "assistant", "content": reasoning, "metadata": {"title": "Thoughts"}}
    return [*messages[:-1], thought, messages[-1]]


def _field(field: Any) -> dict[str, Any]:
    if field is None:
        return {"visible": False}
    return {
        "visible": True, "label": field.label, "placeholder": field.placeholder, "lines": field.num_lines,
        "max_lines": max(field.num_lines, 16),
    }  # fmt: skip


def _chat_field() -> dict[str, Any]:
    return {"visible": True, "label": "Message", "placeholder": "", "lines": 1, "max_lines": 8}


def _asset(name: str) -> str:
    return _HERE.joinpath(name).read_text("utf-8")
