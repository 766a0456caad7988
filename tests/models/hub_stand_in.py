"""A stand-in for the Hugging Face hub on loopback: model repositories with branches, commits and gates, over HTTP.

What it answers follows https://huggingface.co/docs/hub/api and the headers that huggingface_hub reads.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Repo:
    """One model repository."""

    commits: dict[str, Path]
    """40-hex commit to the folder with its files."""
    refs: dict[str, str]
    """Branch or tag to commit."""
    gated: bool = False
    """Metadata is public, files answer 403."""

    def commit(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass
class Hub:
    endpoint: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    """Requests, as "GET /path"."""


@contextmanager
def serve_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.log.append(f"{self.command} {path}")
            is_api = path.startswith("/api/models/")
            name, rest = _split(path.removeprefix("/api/models" if is_api else ""))
            repo = hub.repos.get(name)
            if repo is None:
                self._error(404, "RepoNotFound", "Repository not found")
            elif is_api:
                self._api(name, repo, rest)
            elif rest[:1] == ["resolve"]:
                self._file(repo, rest[1], "/".join(rest[2:]))
            else:
                self._error(404, "EntryNotFound", "Entry not found")

        def _api(self, name: str, repo: Repo, rest: list[str]) -> None:
            """GET /api/models/{name}[/revision/{revision}]: the commit and its files."""
            if rest and rest[0] != "revision":
                self._error(404, "EntryNotFound", "not part of the stand-in")
                return
            commit = repo.commit("/".join(rest[1:]) or "main")
            if commit is None:
                self._error(404, "RevisionNotFound", "Invalid rev id")
                return
            siblings = [{"rfilename": name} for name in _files(repo.commits[commit])]
            body = {"id": name, "modelId": name, "sha": commit, "private": False, "gated": repo.gated and "auto"}
            self._reply(200, json.dumps({**body, "siblings": siblings}).encode(), {"Content-Type": "application/json"})

        def _file(self, repo: Repo, revision: str, name: str) -> None:
            commit = repo.commit(revision)
            if commit is None:
                self._error(404, "RevisionNotFound", "Invalid rev id")
            elif repo.gated:
                self._error(403, "GatedRepo", "Access to this model is restricted")
            elif not (file := repo.commits[commit] / name).is_file():
                self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            else:
                data = file.read_bytes()
                self._reply(200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": commit})

        def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
            self._reply(status, b"", {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})})

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
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _split(path: str) -> tuple[str, list[str]]:
    """("org/name", the rest)."""
    parts = path.strip("/").split("/")
    return "/".join(parts[:2]), parts[2:]


def _files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def point_at(monkeypatch: Any, endpoint: str, cache: Path) -> None:
    """Turns this process's hub client to `endpoint`, online, with an empty cache, until the test ends."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
