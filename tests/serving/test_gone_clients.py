"""Clients that close their connection before they have their answer: nothing more is generated for them, and the access
log says so."""

from __future__ import annotations

import json
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.serving.front import WAIT_S, until
from tests.serving.paced import ASKS, CHAT, LENGTH, NUM_TOKENS, Writer, open_writer

pytestmark = pytest.mark.slow

STEP_S = 0.02  # all tokens of a request then take 4 s
SEVERAL = {**CHAT, **LENGTH, "n": 3, "temperature": 1.0}
Leave = Callable[[socket.socket], None]


def close(connection: socket.socket) -> None:
    """As a program does that ends: FIN."""
    connection.close()


def reset(connection: socket.socket) -> None:
    """As the system does for a program that was killed with something unread: RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.fixture(scope="module")
def module_writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writer]:
    with open_writer(tmp_path_factory.mktemp("writer"), max_ongoing_requests=3) as found:
        yield found


@pytest.fixture
def writer(module_writer: Writer, caplog: pytest.LogCaptureFixture) -> Iterator[Writer]:
    module_writer.rest()
    caplog.set_level(logging.INFO, "hfray.access")
    yield module_writer
    module_writer.rest()


def sent(writer: Writer, path: str, body: Any) -> socket.socket:
    """A connection with a request on its way."""
    where = urlsplit(writer.url)
    content = json.dumps(body).encode()
    connection = socket.create_connection((where.hostname, where.port), timeout=WAIT_S)
    connection.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def line(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """The access log's one line, once it is there."""
    until(lambda: caplog.messages, "the line of the access log")
    [text] = caplog.messages
    return dict(json.loads(text))


def assert_stopped(writer: Writer, num_texts: int = 1) -> None:
    """Long before the texts would have ended."""
    until(lambda: not writer.running, "the text is generated for nobody")
    assert 0 < writer.generated < num_texts * NUM_TOKENS / 2
    until(lambda: not writer.replica.num_ongoing, "the replica counts the request still")
    until(lambda: not writer.front.directory.lanes["writer"].load, "the lane counts the request still")


@pytest.mark.parametrize("leave", [close, reset])
@pytest.mark.parametrize("path", ASKS)
def test_in_the_middle_of_a_stream(writer: Writer, caplog: pytest.LogCaptureFixture, path: str, leave: Leave) -> None:
    writer.pace.step_s = STEP_S
    connection = sent(writer, path, {**ASKS[path], "stream": True})
    received = b""
    while b"data: " not in received:
        received += connection.recv(1 << 16)
    assert received.startswith(b"HTTP/1.1 200")
    leave(connection)
    said = line(caplog)
    assert (said["status"], said["cut"]) == (200, True), "the status had been sent"
    assert 0 < said["num_new_tokens"] < NUM_TOKENS / 2, "what was generated is paid for"
    assert_stopped(writer)


@pytest.mark.parametrize("leave", [close, reset])
@pytest.mark.parametrize("path", ASKS)
def test_before_a_whole_text(writer: Writer, caplog: pytest.LogCaptureFixture, path: str, leave: Leave) -> None:
    writer.pace.step_s = STEP_S
    connection = sent(writer, path, ASKS[path])
    until(lambda: writer.generated >= 3, "the text has begun")
    leave(connection)
    assert line(caplog)["status"] == 499
    assert_stopped(writer)


@pytest.mark.parametrize("stream", [False, True])
def test_all_texts_of_a_request_end(writer: Writer, caplog: pytest.LogCaptureFixture, stream: bool) -> None:
    writer.pace.step_s = STEP_S
    connection = sent(writer, "/v1/chat/completions", {**SEVERAL, "stream": stream})
    until(lambda: writer.running == 3 and writer.generated >= 9, "three texts have begun")
    connection.close()
    assert line(caplog)["status"] == (200 if stream else 499)
    assert_stopped(writer, 3)


@pytest.mark.parametrize("path", ASKS)
def test_before_a_streams_first_piece(writer: Writer, caplog: pytest.LogCaptureFixture, path: str) -> None:
    writer.pace.go.clear()
    connection = sent(writer, path, {**ASKS[path], "stream": True})
    until(lambda: writer.replica.num_ongoing, "the request is at the replica")
    connection.close()
    assert line(caplog)["status"] == 499
    until(lambda: not writer.replica.num_ongoing, "the replica counts the request still")
    writer.pace.go.set()
    until(lambda: not writer.running, "the text is generated for nobody")
    assert writer.generated <= 1, "the step that was held up"


@pytest.mark.parametrize("stream", [False, True])
def test_one_that_waits_is_never_begun(writer: Writer, caplog: pytest.LogCaptureFixture, stream: bool) -> None:
    """Its place in the queue is free at once, for somebody who is there."""
    lane = writer.front.directory.lanes["writer"]
    writer.pace.step_s = STEP_S
    before = [sent(writer, "/v1/completions", ASKS["/v1/completions"]) for _ in range(3)]
    until(lambda: lane.num_ongoing == 3, "as many as the replica takes at once")
    connection = sent(writer, "/v1/completions", {**ASKS["/v1/completions"], "stream": stream})
    until(lambda: lane.load == 4, "a fourth waits")
    connection.close()
    assert line(caplog)["status"] == 499
    assert lane.load == lane.num_ongoing == writer.replica.num_ongoing == 3
    for each in before:
        each.close()
    assert_stopped(writer, 3)


def test_others_go_on(writer: Writer) -> None:
    """Also those whose texts were in one step with it."""
    body = {"model": "writer", "prompt": "once", "max_tokens": 12, "min_tokens": 12}
    alone = httpx.post(f"{writer.url}/v1/completions", json=body).json()["choices"][0]["text"]
    writer.pace.step_s = STEP_S
    gone = sent(writer, "/v1/completions", ASKS["/v1/completions"])
    stays = sent(writer, "/v1/completions", body)
    until(lambda: writer.running == 2, "both have begun")
    gone.close()
    received = b""
    while alone.encode() not in received:
        found = stays.recv(1 << 16)
        assert found, received
        received += found
    stays.close()
