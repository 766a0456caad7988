"""A stand-in for the Hugging Face hub: one data set repository, its API and its files with byte ranges.

The hub client reads HF_ENDPOINT when it is imported, so a test starts this server and looks at it from a new process.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "a" * 40


@contextmanager
def hub(name: str, root: Path) -> Iterator[tuple[str, list[str]]]:
    """Serves the files below `root` as data set `name`; gives the endpoint and the growing list of requests."""
    log: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            log.append(f"POST {self.path}")
            if f"/api/datasets/{name}/paths-info/" in self.path:
                is_json = "json" in self.headers.get("content-type", "")
                asked = json.loads(body)["paths"] if is_json else parse_qs(body.decode())["paths"]
                found = [_entry(root, root / path) for path in ([asked] if isinstance(asked, str) else asked)]
                self._json([entry for entry in found if entry])
            else:
                self._reply(404, b"{}", {"X-Error-Code": "EntryNotFound"})

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            log.append(f"{self.command} {path} {self.headers.get('range') or ''}".strip())
            api = f"/api/datasets/{name}"
            if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
                files = [str(file.relative_to(root)) for file in sorted(root.rglob("*")) if file.is_file()]
                self._json({"id": name, "sha": COMMIT, "private": False, "siblings": [{"rfilename": f} for f in files]})
            elif path.startswith(f"{api}/tree/"):
                below = path.removeprefix(f"{api}/tree/").partition("/")[2]
                folder = root / below
                recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() == "true"
                if folder.is_dir():
                    self._json(
                        [_entry(root, file) for file in sorted(folder.rglob("*") if recursive else folder.iterdir())]
                    )
                else:
                    self._reply(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            elif path.startswith(f"/datasets/{name}/resolve/"):
                file = root / path.removeprefix(f"/datasets/{name}/resolve/").partition("/")[2]
                if file.is_file():
                    self._file(file)
                else:
                    self._reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            else:
                self._reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        def _json(self, value: Any) -> None:
            self._reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _file(self, file: Path) -> None:
            data = file.read_bytes()
            headers = {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            wanted = self.headers.get("range")
            if wanted is None:
                self._reply(200, data, headers)
                return
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            stop = min(int(last) + 1 if last else len(data), len(data))
            headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
            self._reply(206, data[int(first) : stop], headers)

        def _reply(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", log
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _entry(root: Path, file: Path) -> dict[str, Any] | None:
    path = str(file.relative_to(root))
    if file.is_dir():
        return {"type": "directory", "oid": COMMIT, "size": 0, "path": path}
    if not file.is_file():
        return None
    return {"type": "file", "oid": _etag(file.read_bytes()), "size": file.stat().st_size, "path": path}
