"""What all requests' bodies may take together, on a live port: promise R12."""

from __future__ import annotations

from hfray.serving.held import HeldBytes
from tests.serving.front import Front, run_front, until

HEAD = "POST /v1/echo HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n"


def _json(num_bytes: int) -> bytes:
    return b'"' + b"x" * (num_bytes - 2) + b'"'


def _status(front: Front, num_bytes: int) -> int:
    return front.ask("POST", "/v1/echo", _json(num_bytes), key=None).status


def test_bodies_together_are_bounded_and_room_comes_back() -> None:
    held = HeldBytes(300_000)
    with run_front(None, "", held=held) as front, front.connect() as slow:
        body = _json(200_000)
        slow.sendall(HEAD.format(len(body)).encode() + body[:150_000])
        until(lambda: held.num_bytes == 150_000, "what has come is held")
        refused = front.ask("POST", "/v1/echo", _json(200_000), key=None)
        refused.assert_error(503)
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json["error"]["type"] == "overloaded_error"
        until(lambda: held.num_bytes == 150_000, "the refused request holds nothing")
        assert _status(front, 100_000) == 200, "a smaller one fits beside it"
        slow.sendall(body[150_000:])
        assert front.read(slow).status == 200
        until(lambda: held.num_bytes == 0, "all was answered")
        assert _status(front, 200_000) == 200


def test_a_request_that_is_alone_is_taken_whatever_its_size() -> None:
    held = HeldBytes(1000)
    with run_front(None, "", held=held) as front:
        assert _status(front, 500_000) == 200
        until(lambda: held.num_bytes == 0, "it was answered")


def test_a_client_that_leaves_gives_its_room_back() -> None:
    held = HeldBytes(300_000)
    with run_front(None, "", held=held) as front:
        with front.connect() as leaving:
            leaving.sendall(HEAD.format(200_000).encode() + _json(200_000)[:150_000])
            until(lambda: held.num_bytes == 150_000, "what has come is held")
        until(lambda: held.num_bytes == 0, "it went away")
