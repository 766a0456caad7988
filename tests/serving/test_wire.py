"""Heads that a server should not wait for or keep, and answers in a form of ours where there is no request."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from hfray.serving import wire
from hfray.serving.keys import KeyRing
from tests.serving.front import Front, make_keys, rss_bytes, run_front, until

HEAD = b"POST /v1/echo HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture
def front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    monkeypatch.setattr(wire, "HEAD_TIMEOUT_S", 0.3)
    path, texts = make_keys(tmp_path, alice={})
    with run_front(KeyRing.load(path), texts["alice"]) as front:
        yield front


@pytest.mark.parametrize(
    "content",
    [
        HEAD + b"content-length: x\r\n\r\n",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"content-length: 99999999999999999999999999\r\n\r\n",
        HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\n12",
        HEAD + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"bad header\r\n\r\n",
        HEAD + b"x: a\x00b\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 100,
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
    ],
    ids=str,
)
def test_what_is_no_request_is_answered_in_json(front: Front, content: bytes) -> None:
    reply = front.raw(content)
    reply.assert_error(reply.status)
    assert reply.status in (400, 401, 413)
    assert reply.headers["connection"] == "close"
    [line] = front.access(1)
    assert (line["status"], line["request_id"]) == (reply.status, reply.headers["x-request-id"])


def test_the_form_follows_the_route_where_it_is_known(front: Front) -> None:
    assert front.raw(HEAD + b"bad header\r\n\r\n").json["error"]["type"] == "invalid_request_error"
    assert front.raw(b"GET / HTTP/9.9\r\n\r\n").json["error_type"] == "validation"


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"".join(b"x-%d: %s\r\n" % (number, b"a" * 8192) for number in range(100)) + b"\r\n",
        HEAD + b"x: " + b"a" * (64 << 20),
        b"GET /" + b"a" * (64 << 20),
    ],
    ids=["100 of 8 KiB", "one without end", "a path without end"],
)
def test_endless_heads_are_refused_and_not_kept(front: Front, head: bytes) -> None:
    before = rss_bytes()
    front.raw(head).assert_error(431)
    assert rss_bytes() - before < 8 << 20


@pytest.mark.parametrize("tail", [b"0\r\nx: ", b"1;"], ids=["trailer", "chunk extension"])
def test_endless_ends_of_a_body_are_cut(front: Front, tail: bytes) -> None:
    head = HEAD + f"authorization: Bearer {front.key}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    before = rss_bytes()
    front.raw(head + tail + b"a" * (64 << 20)).assert_error(431)
    assert rss_bytes() - before < 8 << 20
    assert len(front.access(1)) == 1


def test_a_head_that_does_not_come_is_not_waited_for(front: Front) -> None:
    with front.connect() as connection:
        connection.sendall(HEAD)
        front.read(connection).assert_error(408)
    with front.connect() as connection:
        assert connection.recv(1) == b""  # never used: closed without a word
    assert len(front.access(1)) == 1


def test_a_slow_second_head_is_not_waited_for_either(front: Front) -> None:
    request = f"GET /v1/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {front.key}\r\n".encode()
    with front.connect() as connection:
        connection.sendall(request + b"\r\n")
        front.read(connection).assert_error(404)
        connection.sendall(request)
        front.read(connection).assert_error(408)


def test_requests_in_a_row_are_all_answered(front: Front) -> None:
    request = f"POST /v1/echo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {front.key}\r\ncontent-length: 1\r\n\r\n1"
    with front.connect() as connection:
        connection.sendall(20 * request.encode())
        data = b""
        with contextlib.suppress(TimeoutError):
            while data.count(b'{"got":1}') < 20:
                data += connection.recv(1 << 16)
    assert data.count(b"HTTP/1.1 200") == 20
    assert len(front.access(20)) == 20


@pytest.mark.parametrize("piece", [b"1", b"1" * (1 << 20)], ids=["1 byte", "1 MiB"])
def test_a_refused_client_reads_why_though_it_was_still_sending(front: Front, piece: bytes) -> None:
    head = HEAD + b"authorization: Bearer hfray-wrong\r\ncontent-length: %d\r\n\r\n" % (4 * len(piece))
    with front.connect() as connection:
        connection.sendall(head)
        assert select.select([connection], [], [], 10.0)[0]  # refused before the body has come
        for _ in range(4):
            connection.sendall(piece)
        front.read(connection).assert_error(401)
        assert connection.recv(1) == b""  # and the end is no reset


def test_a_request_that_is_cut_ends_though_its_client_stays(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LINGER_S", 600.0)
    head = HEAD.replace(b"/v1/echo", b"/swallows")
    head += f"authorization: Bearer {front.key}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    with front.connect() as connection:
        connection.sendall(head + b"0\r\nx: " + b"a" * (1 << 20))
        front.read(connection).assert_error(431)
        assert len(front.access(1)) == 1
        until(lambda: front.log, "the line in the whole log, which is written after the other")
        assert front.log == front.lines  # what the application then answers is no error either


def test_a_client_that_goes_on_sending_is_not_read_for_ever(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LINGER_S", 0.3)

    def sends() -> bool:
        try:
            connection.sendall(b"1")
        except ConnectionError:
            return False
        return True

    with front.connect() as connection:
        connection.sendall(HEAD + b"content-length: 99999999\r\n\r\n")
        until(lambda: not sends(), "the end of the connection")
