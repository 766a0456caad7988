"""Templates that mean harm, or are ill, and their limits; all others are rendered as in this process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hfray.errors import RowError
from hfray.serving.template_worker import MAX_RENDER_S
from hfray.serving.templates import NUM_WORKERS, TemplateProcess
from hfray.tasks.chat_prompts import ChatPrompts
from hfray.tasks.text_generation import TextGeneration
from tests.models.support import CHAT_TEMPLATE, letter_tokenizer
from tests.serving.front import until

pytestmark = pytest.mark.slow

USER = [{"role": "user", "content": "Ünïcode \N{GRINNING FACE} {{ 7 * 7 }}"}]
ENDLESS = "{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}"
GOOD = "{{ bos_token }}" + CHAT_TEMPLATE


@pytest.fixture(scope="module")
def templates() -> Iterator[TemplateProcess]:
    process = TemplateProcess({"bos_token": "[CLS]", "extra": ["a", "b"]})
    yield process
    process.close()


def is_there(group: int) -> bool:
    """Whether a process of the group runs."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, own_group = path.read_text("utf-8", "replace").rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(own_group) == group and state not in "ZX":
            return True
    return False


def refused(templates: TemplateProcess, template: str, messages: Any = None) -> str:
    with pytest.raises(RowError) as caught:
        templates.render(template, messages or USER, None, False)
    assert caught.value.type == "ChatTemplate"
    return caught.value.message


@pytest.mark.parametrize(
    "template",
    [
        GOOD,
        "{{ messages | tojson }}{{ messages[-1].content }}{{ tools | tojson if tools else '' }}",
        "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- set ns.n = ns.n + 1 -%}"
        "{{ ns.n }}{{ m['content'] | trim }}{%- endfor -%}",
        "{% generation %}{{ messages[-1].content }}{% endgeneration %}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("prefilled", [False, True])
def test_prompts_are_those_of_the_tokenizer(templates: TemplateProcess, template: str, prefilled: bool) -> None:
    tokenizer = letter_tokenizer()
    tokenizer.bos_token = "[CLS]"
    tokenizer.chat_template = template
    chats = ChatPrompts(tokenizer)
    messages = [*USER, {"role": "assistant", "content": "It is"}] if prefilled else USER
    tools = [{"type": "function", "function": {"name": "f"}}] if "tools" in template else None
    row = {"messages": messages, "tools": tools}
    options = TextGeneration.Options(input="messages", continue_final_message=prefilled)
    assert chats.prompt(row, options, templates.render) == chats.prompt(row, options)


@pytest.mark.parametrize(
    "template",
    [
        ENDLESS,
        ENDLESS.replace("%}{%", "%}x{%"),
        "{% for i in range(10**9) %}x{% endfor %}",  # over the sandbox's own limit
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
        "{{ (10 ** 9) ** (10 ** 9) }}",
    ],
)
def test_one_that_does_not_end_is_killed(templates: TemplateProcess, template: str) -> None:
    begun = time.monotonic()
    assert refused(templates, template)
    assert time.monotonic() - begun < MAX_RENDER_S + 1
    assert templates.render(GOOD, USER, None, False).startswith("[CLS][user]")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for i in range(600) %}{{ 'a' * 4096 }}{% endfor %}", "too long"),
        ("{{ 'a' * (10 ** 9) }}", "memory"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% if %}", "expression"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    ],
)
def test_one_that_does_wrong_is_refused(templates: TemplateProcess, template: str, words: str) -> None:
    assert words in refused(templates, template)


def test_others_go_on_beside_one_that_does_not_end(templates: TemplateProcess) -> None:
    threads = [threading.Thread(target=refused, args=(templates, ENDLESS)) for _ in range(NUM_WORKERS - 1)]
    for thread in threads:
        thread.start()
    waits = []
    while any(thread.is_alive() for thread in threads):
        begun = time.monotonic()
        templates.render(GOOD, USER, None, False)
        waits.append(time.monotonic() - begun)
    for thread in threads:
        thread.join()
    assert len(waits) > 20
    assert sorted(waits)[len(waits) // 2] < 0.1


def test_a_process_that_was_killed_is_replaced() -> None:
    templates = TemplateProcess({"bos_token": "[CLS]"}, num_workers=2)
    try:
        os.killpg(templates._group._process.pid, signal.SIGKILL)
        for _ in range(4):
            assert templates.render(GOOD, USER, None, False).startswith("[CLS]")
    finally:
        templates.close()


def test_nothing_is_left_when_it_is_closed() -> None:
    templates = TemplateProcess({}, num_workers=2)
    group = templates._group._process.pid
    templates.close()
    until(lambda: not is_there(group), "the workers end")  # they are reaped by whoever reaps orphans


def test_workers_end_with_who_asks() -> None:
    templates = TemplateProcess({}, num_workers=2)
    group = templates._group
    for worker in group.workers:
        worker.connection.close()
    assert group._process.wait(10) == 0
