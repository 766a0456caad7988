"""A stand-in for the Hugging Face hub on loopback: model and data set repositories with branches, commits and gates,
their API, and their files with byte ranges; and what publishing needs: new repositories and branches, large files by
the LFS protocol, commits.

What it answers follows https://huggingface.co/docs/hub/api, the headers that huggingface_hub reads, and the requests
that its `create_repo`, `create_branch` and `create_commit` make (huggingface_hub 2.4, _commit_api.py and lfs.py).
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


@dataclass
class Repo:
    """One repository."""

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
    """By name as in the hub's addresses: "org/model", "datasets/org/set"."""
    log: list[str] = field(default_factory=list)
    """Requests, as "GET /path" or "GET /path bytes=0-7"."""
    token: str = "hf_writer"
    """May publish below `org`; no other may."""
    visibility: dict[str, str | None] = field(default_factory=dict)
    """Of the repositories that were created: what the client asked for."""
    messages: list[str] = field(default_factory=list)
    """Of the commits that were made."""
    objects: dict[str, bytes] = field(default_factory=dict)
    """Large files that were uploaded, by sha256."""
    root: Path = Path()
    """Where new commits lie."""


@contextmanager
def serve_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            self.do_GET()

        def do_PUT(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            path = unquote(urlsplit(self.path).path)
            hub.log.append(f"{self.command} {path} {self.headers.get('range') or ''}".strip())
            is_api = path.startswith("/api/")
            if self._uploads(path, body):
                return
            name, rest = _split(path.removeprefix("/api").removeprefix("/models"))
            repo = hub.repos.get(name)
            if repo is None:
                self._error(404, "RepoNotFound", "Repository not found")
            elif is_api:
                self._api(name, repo, rest, body)
            elif rest[:1] == ["resolve"]:
                self._file(repo, rest[1], "/".join(rest[2:]))
            else:
                self._error(404, "EntryNotFound", "Entry not found")

        def _uploads(self, path: str, body: bytes) -> bool:
            """Answers what publishing asks; False for any other request."""
            words = path.strip("/").split("/")
            if self.command == "PUT" and words[0] == "lfs":
                hub.objects[_digest(body)] = body
                self._json({})
                return True
            what = next((word for word in ("create", "validate-yaml", "preupload", "batch", "branch", "commit")
                         if self.command == "POST" and word in words), None)  # fmt: skip
            if what is None:
                return False
            name = "/".join(words[2:4]) if words[0] == "api" else "/".join(words[:2]).removesuffix(".git")
            asked = {} if what == "commit" else json.loads(body)
            if what == "create":
                name = "/".join(filter(None, (asked["organization"], asked["name"])))
            if self.headers.get("authorization") != f"Bearer {hub.token}":
                self._error(401, "", "Invalid credentials")
            elif what == "validate-yaml":
                head = yaml.safe_load(asked["content"].split("---")[1])
                self._json({"errors": [], "warnings": [] if "license" in head else [{"message": "no license"}]})
            elif not name.startswith("org/"):
                self._error(403, "", "You have no right to write there")
            elif what == "create":
                self._create(name, asked)
            elif name not in hub.repos:
                self._error(404, "RepoNotFound", "Repository not found")
            elif what == "batch":
                place = f"{hub.endpoint}/lfs/"
                uploads = [
                    each
                    if each["oid"] in hub.objects
                    else each | {"actions": {"upload": {"href": place + each["oid"]}}}
                    for each in asked["objects"]
                ]
                self._json({"objects": uploads, "transfer": "basic"})
            else:
                self._write(what, hub.repos[name], name, words[5], asked, body)
            return True

        def _create(self, name: str, asked: dict[str, Any]) -> None:
            there = name in hub.repos
            if not there:
                folder = hub.root / _digest(name.encode())
                folder.mkdir()
                hub.repos[name] = Repo({"0" * 40: folder}, {"main": "0" * 40})
                hub.visibility[name] = asked.get("visibility")
            self._json({"url": f"{hub.endpoint}/{name}"}, 409 if there else 200)

        def _write(self, what: str, repo: Repo, name: str, revision: str, asked: Any, body: bytes) -> None:
            commit = repo.commit(revision)
            if what == "branch":
                repo.refs.setdefault(revision, repo.refs["main"])
                self._json({}, 200 if commit is None else 409)
            elif commit is None:
                self._error(404, "RevisionNotFound", "Invalid rev id")
            elif what == "preupload":
                modes = [
                    {"path": file["path"], "shouldIgnore": False,
                     "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                    for file in asked["files"]
                ]  # fmt: skip
                self._json({"files": modes})
            else:
                new = self._commit(repo, commit, body)
                repo.refs[revision] = new
                self._json({"commitUrl": f"{hub.endpoint}/{name}/commit/{new}", "commitOid": new})

        def _commit(self, repo: Repo, parent: str, body: bytes) -> str:
            new = hashlib.sha1(parent.encode() + body).hexdigest()
            repo.commits[new] = folder = hub.root / new
            shutil.copytree(repo.commits[parent], folder)
            for line in body.splitlines():
                key, value = (operation := json.loads(line))["key"], operation["value"]
                if key == "header":
                    hub.messages.append(value["summary"])
                elif key == "deletedFile":
                    (folder / value["path"]).unlink()
                else:
                    data = hub.objects[value["oid"]] if key == "lfsFile" else base64.b64decode(value["content"])
                    (folder / value["path"]).parent.mkdir(parents=True, exist_ok=True)
                    (folder / value["path"]).write_bytes(data)
            return new

        def _api(self, name: str, repo: Repo, rest: list[str], body: bytes) -> None:
            """What follows /api/models/{name} or /api/datasets/{name}: nothing or revision/{revision}, the commit and
            its files; tree/{revision}/{folder}, entries; paths-info/{revision}, the entries that the body names."""
            what = rest[0] if rest else "revision"
            commit = repo.commit(rest[1] if rest[1:] else "main")
            if commit is None:
                self._error(404, "RevisionNotFound", "Invalid rev id")
                return
            root = repo.commits[commit]
            folder = root.joinpath(*rest[2:])
            if what == "revision":
                siblings = [{"rfilename": file.relative_to(root).as_posix()} for file in _below(root) if file.is_file()]
                facts = {"id": name.removeprefix("datasets/"), "sha": commit, "private": False, "siblings": siblings}
                self._json({**facts, "modelId": facts["id"], "gated": repo.gated and "auto"})
            elif what == "tree" and folder.is_dir():
                recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() == "true"
                files = _below(folder) if recursive else sorted(folder.iterdir())
                self._json([_entry(root, commit, file) for file in files])
            elif what == "paths-info":
                is_json = "json" in self.headers.get("content-type", "")
                asked = json.loads(body)["paths"] if is_json else parse_qs(body.decode())["paths"]
                files = [root / path for path in ([asked] if isinstance(asked, str) else asked)]
                self._json([_entry(root, commit, file) for file in files if file.exists()])
            else:
                self._error(404, "EntryNotFound", "Entry not found")

        def _file(self, repo: Repo, revision: str, name: str) -> None:
            commit = repo.commit(revision)
            if commit is None:
                self._error(404, "RevisionNotFound", "Invalid rev id")
            elif repo.gated:
                self._error(403, "GatedRepo", "Access to this repository is restricted")
            elif not (file := repo.commits[commit] / name).is_file():
                self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            else:
                data = file.read_bytes()
                self._range(data, {"ETag": f'"{_digest(data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"})

        def _range(self, data: bytes, headers: dict[str, str]) -> None:
            wanted = self.headers.get("range")
            if wanted is None:
                self._reply(200, data, headers)
                return
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            stop = min(int(last) + 1 if last else len(data), len(data))
            self._reply(
                206, data[int(first) : stop], {**headers, "Content-Range": f"bytes {first}-{stop - 1}/{len(data)}"}
            )

        def _json(self, value: Any, status: int = 200) -> None:
            self._reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

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
    scratch = tempfile.TemporaryDirectory(prefix="hub-stand-in-")
    hub.root = Path(scratch.name)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        scratch.cleanup()


def _split(path: str) -> tuple[str, list[str]]:
    """("org/name" or "datasets/org/name", the rest)."""
    parts = path.strip("/").split("/")
    length = 3 if parts[0] == "datasets" else 2
    return "/".join(parts[:length]), parts[length:]


def _below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _entry(root: Path, commit: str, file: Path) -> dict[str, Any]:
    path = file.relative_to(root).as_posix()
    if file.is_dir():
        return {"type": "directory", "oid": commit, "size": 0, "path": path}
    return {"type": "file", "oid": _digest(file.read_bytes()), "size": file.stat().st_size, "path": path}


def point_at(monkeypatch: Any, endpoint: str, cache: Path) -> None:
    """Turns this process's hub client to `endpoint`, online, with an empty cache, until the test ends.

    A client that starts elsewhere reads HF_ENDPOINT when it is imported.
    """
    from huggingface_hub import constants
    from transformers.utils import hub

    monkeypatch.setattr(hub, "_hf_api", None)  # it remembers the first hub that it was asked for
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
