"""The guard before a small application, on a real port."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator

import pytest

from hfray.serving.guard import OPEN_PATHS
from hfray.serving.keys import KeyRing
from tests.serving.front import SECRET, Front, make_keys, rss_bytes, run_front, small_app

MIB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    path, texts = make_keys(tmp_path_factory.mktemp("keys"), alice={})
    with run_front(KeyRing.load(path), texts["alice"], body_timeout_s=1.0) as front:
        yield front


@pytest.fixture
def front(server: Front) -> Front:
    server.forget()
    return server


def test_every_route_and_any_path_needs_the_key_but_for_the_open_ones(front: Front) -> None:
    dice = random.Random(16)
    routes = [
        (method, route.path.replace("{name}", "x").replace("{number}", "1"))
        for route in small_app().routes
        for method in route.methods
    ]
    routes = [*{*routes, ("GET", "/docs"), ("GET", "/openapi.json")}]
    letters = string.ascii_letters + "/.-_~%:@;"
    alphabet = [*letters, "%2e", "%00", "//", "/../", "/healthz", "healthz/", "/v1/", "/-/", "%2f"]
    paths = ["/" + "".join(dice.choices(alphabet, k=dice.randint(0, 12))) for _ in range(200)]
    asked = [*routes, *((dice.choice(["GET", "POST", "HEAD", "PUT", "OPTIONS"]), path) for path in paths)]
    assert len(routes) > 10
    num_open = 0
    for method, path in asked:
        reply = front.ask(method, path, key=None)
        if path in OPEN_PATHS and method in ("GET", "HEAD"):
            num_open += 1
            assert reply.status == 200
        elif reply.status == 400:
            assert "%" in path or path.startswith("//") or ":" in path, path  # no URL: uvicorn does not read it
            reply.assert_error(400)
        else:
            assert reply.status == 401, (method, path)
            assert reply.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                reply.assert_error(401)
    assert num_open == 2
    assert len(front.access(len(asked))) == len(asked)


@pytest.mark.parametrize("key", ["wrong", "hfray-" + "A" * 43, "é", "x" * 5000])
def test_a_wrong_key_is_refused(front: Front, key: str) -> None:
    front.ask("POST", "/v1/echo", b"{}", key=key).assert_error(401)


def test_two_keys_are_none(front: Front) -> None:
    header = f"authorization: Bearer {front.key}\r\n"
    front.ask("POST", "/v1/echo", b"{}", headers=header).assert_error(401)
    front.ask("POST", "/v1/echo", b"{}", headers=header.replace("Bearer", "Basic"), key=None).assert_error(401)
    assert front.ask("POST", "/v1/echo", b"{}", headers=header.replace("Bearer", "bearer"), key=None).status == 200


def test_without_a_ring_all_is_open() -> None:
    with run_front(None, "") as front:
        assert front.ask("POST", "/v1/echo", b"[1]", key=None).json == {"got": [1]}
        assert front.access(1)[0]["key"] is None


def test_error_bodies_have_the_form_of_their_route(front: Front) -> None:
    assert front.ask("POST", "/v1/echo", b"{}", key=None).json == {
        "error": {
            "message": "no valid API key; send the header `Authorization: Bearer KEY`",
            "type": "authentication_error",
            "param": None,
            "code": "invalid_api_key",
        }
    }
    assert front.ask("GET", "/models/x/v1/chat", key=None).json["error"]["type"] == "authentication_error"
    assert front.ask("POST", "/refuses").json == {"error": "inputs: too long; send less", "error_type": "validation"}
    missing = front.ask("GET", "/nowhere")
    missing.assert_error(404)
    assert missing.json["error_type"] == "validation"
    front.ask("GET", "/v1/nowhere").assert_error(404)
    wrong = front.ask("DELETE", "/models/x")
    wrong.assert_error(405)
    assert wrong.headers["allow"] == "POST"


def test_a_framework_s_own_error_does_not_quote_the_input(front: Front) -> None:
    reply = front.ask("GET", f"/typed/{SECRET}")
    reply.assert_error(422)
    assert SECRET.encode() not in reply.body


def test_an_exception_says_nothing_of_the_request(front: Front) -> None:
    reply = front.ask("POST", "/breaks", SECRET.encode())
    reply.assert_error(500)
    assert reply.json["error_type"] == "generation"
    [line] = front.access(1)
    said = "\n".join([*front.log, *front.lines, reply.body.decode()])
    assert SECRET not in said
    assert f"request {line['request_id']}: ValueError at front.py" in said


def test_after_the_start_the_connection_ends(front: Front) -> None:
    reply = front.ask("GET", "/cut")
    assert reply.status == 200
    assert reply.body.endswith(b"data: 1\n\n\r\n")  # without the last chunk, so a client knows
    assert front.access(1)[0]["cut"] is True
    assert SECRET not in "\n".join(front.log)


@pytest.mark.parametrize("given", ["abc-123", "A" * 64])
def test_a_request_id_is_kept(front: Front, given: str) -> None:
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    headers = f"x-request-id: {given}\r\ntraceparent: {trace}\r\n"
    assert front.ask("POST", "/v1/echo", b"1", headers=headers).headers["x-request-id"] == given
    [line] = front.access(1)
    assert (line["request_id"], line["trace_id"]) == (given, "ab" * 16)


@pytest.mark.parametrize("given", ["a b", "A" * 65, "é", "a\x0bb", "\x1b[31m", "a;b", ""])
def test_a_bad_request_id_is_replaced(front: Front, given: str) -> None:
    reply = front.ask("POST", "/v1/echo", b"1", headers=f"x-request-id: {given}\r\ntraceparent: {given}\r\n")
    [line] = front.access(1)
    assert reply.headers["x-request-id"] == line["request_id"] != given
    assert reply.status in (200, 400)


def test_lines_of_the_access_log_are_requests(front: Front) -> None:
    evil = ["%0d%0a{}", "%1b[2J", "%e2%80%a8", "%7f", "a%0ab", "%00", "%f0%9f%98%80", "%ff"]
    for text in evil:
        front.ask("GET", f"/{text}/x")
        front.ask("POST", f"/models/{text}", json.dumps({"inputs": SECRET}).encode())
    lines = front.access(2 * len(evil))
    assert len(lines) == 2 * len(evil)
    assert all(line.isprintable() and line.isascii() and SECRET not in line for line in front.lines)
    assert {line["route"] for line in lines} == {"/?", "/models/{name}"}
    assert all(line["key"] == "alice" for line in lines)
    echoed = [line for line in lines if line["status"] == 200]
    assert {(line["model"], line["in_bytes"]) for line in echoed} == {("echo", len(SECRET) + 14)}


def test_no_key_is_in_a_log_or_an_answer(front: Front) -> None:
    replies = [
        front.ask("POST", "/v1/echo", b"{}"),
        front.ask("GET", f"/{front.key}"),
        front.ask("GET", f"/x?key={front.key}", key=None),
        front.ask("POST", "/breaks", front.key.encode()),
        front.raw(f"GET /{front.key} HTTP/9\r\nx: {front.key}\r\n\r\n".encode()),
    ]
    front.access(len(replies))
    said = [*front.lines, *front.log, *(reply.body.decode() + repr(reply.headers) for reply in replies)]
    assert front.key not in "\n".join(said)


@pytest.mark.parametrize(("path", "limit"), [("/v1/echo", MIB), ("/images/x", 10 * MIB)])
def test_a_body_has_a_limit_by_its_route(front: Front, path: str, limit: int) -> None:
    body = json.dumps("a" * (limit - 2)).encode()
    assert len(body) == limit
    assert front.ask("POST", path, body).status == 200
    reply = front.ask("POST", path, body + b" ")
    reply.assert_error(413)
    assert reply.headers["connection"] == "close"
    chunked = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {front.key}\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    whole = b"%x\r\n%s\r\n0\r\n\r\n"
    assert front.raw(chunked.encode() + whole % (len(body), body)).status == 200
    front.raw(chunked.encode() + whole % (len(body) + 1, body + b" ")).assert_error(413)


def test_a_handler_cannot_swallow_the_limit(front: Front) -> None:
    head = (
        f"POST /swallows HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {front.key}\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    front.raw(head.encode() + b"200001\r\n" + b"a" * 0x200001).assert_error(413)


@pytest.mark.parametrize("key", ["", None])
def test_bodies_without_end_leave_memory_flat(front: Front, key: str | None) -> None:
    auth = f"authorization: Bearer {front.key}\r\n" if key == "" else ""
    wanted = 413 if key == "" else 401
    block = b"a" * MIB
    before = rss_bytes()
    for head, piece in (
        (f"content-length: {64 * MIB}\r\n", block),
        ("transfer-encoding: chunked\r\n", b"%x\r\n%s\r\n" % (MIB, block)),
    ):
        with front.connect() as connection:
            connection.sendall(f"POST /v1/echo HTTP/1.1\r\nhost: x\r\n{auth}{head}\r\n".encode())
            sent = 0
            try:
                while sent < 64:
                    connection.sendall(piece)
                    sent += 1
            except ConnectionError:
                pass
            assert sent < 64, "the server read it all"
            reply = front.read(connection)
            reply.assert_error(wanted)
            assert reply.headers["connection"] == "close"
    assert rss_bytes() - before < 16 * MIB
    assert sum(line["in_bytes"] for line in front.access(2)) <= 3 * MIB


def test_a_body_that_does_not_come_is_a_408(front: Front) -> None:
    with front.connect() as connection:
        auth = f"authorization: Bearer {front.key}"
        connection.sendall(f"POST /v1/echo HTTP/1.1\r\nhost: x\r\n{auth}\r\ncontent-length: 9\r\n\r\n1".encode())
        reply = front.read(connection)
    reply.assert_error(408)
    assert reply.json["error"]["type"] == "timeout_error"


def test_many_or_long_headers_are_a_431(front: Front) -> None:
    front.ask("GET", "/v1/x", headers="".join(f"x-{n}: 1\r\n" for n in range(70))).assert_error(431)
    front.ask("GET", "/v1/x", headers=f"x-1: {'a' * (33 << 10)}\r\n").assert_error(431)
    front.ask("GET", f"/{'a' * (33 << 10)}").assert_error(431)
    assert front.ask("GET", "/healthz", headers="".join(f"x-{n}: 1\r\n" for n in range(60))).status == 200


def test_head_requests_and_connections_that_stay(front: Front) -> None:
    reply = front.ask("HEAD", "/v1/x", key=None)
    assert (reply.status, reply.body) == (401, b"")
    with front.connect() as connection:
        for _ in range(3):
            connection.sendall(f"GET /nope HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {front.key}\r\n\r\n".encode())
            front.read(connection).assert_error(404)


def test_open_paths_are_open_for_reading_only(front: Front) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        front.ask(method, "/healthz", key=None).assert_error(401)
    for path in ("/healthz/", "/Healthz", "//healthz", "/healthz/x", "/x/../healthz", "/readyz;x"):
        assert front.ask("GET", path, key=None).status in (400, 401)
    assert front.ask("GET", "/healthz?x=1", key=None).status == 200


def test_trailers_are_no_headers(front: Front) -> None:
    head = (
        f"POST /headers HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {front.key}\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    reply = front.raw(head.encode() + b"1\r\na\r\n0\r\nx-evil: 1\r\n\r\n")
    assert reply.json == ["host", "authorization", "transfer-encoding"]


def test_a_websocket_is_refused(front: Front) -> None:
    headers = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n"
    front.ask("GET", "/v1/x", headers=headers, key=None).assert_error(401)
