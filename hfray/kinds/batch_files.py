"""`output.jsonl` and `error.jsonl` of a job over an OpenAI batch file, made of its parts. Reads one part at a time.

The form is that of OpenAI's Batch API (`BatchRequestOutput`): a line has `id`, `custom_id`, `response` (status_code,
request_id, body) and `error`. Requests that were answered are in the one file; in the other those that were refused or
failed, with the error as a response's body, and lines that could not be read as requests, with `error` and without a
response. Lines come in the order of the input. Ids are hashes: a file that is assembled again has the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hfray.data.ledger import Ledger
from hfray.data.parts import decode_part
from hfray.inference.receipt import Receipt
from hfray.tasks.openai.responses import error_response, identifier

OUTPUT, ERROR = "output.jsonl", "error.jsonl"
_UNREAD = {
    "MalformedRow": "invalid_json_line",
    "InvalidText": "invalid_json_line",
    "MissingCustomId": "invalid_custom_id",
}
_IDS = {"chat.completion": "chatcmpl-", "text_completion": "cmpl-"}


def write_batch_files(ledger: Ledger, receipts: Sequence[Receipt]) -> None:
    """Both files, whole; also without failures. `created` is the moment of this call."""
    created = int(time.time())
    with ledger.storage.writer(OUTPUT) as output, ledger.storage.writer(ERROR) as errors:
        for receipt in receipts:
            for line, failed in _lines(ledger, receipt.shard, created):
                (errors if failed else output).write(line)


def _lines(ledger: Ledger, shard: int, created: int) -> Iterator[tuple[bytes, bool]]:
    """Each line, and whether it is one of the error file."""
    names = ("custom_id", "result", "error")
    table = decode_part(ledger.read_part(shard), ledger.format, ledger.layout.name(shard), names)
    columns = [table.column(name).to_pylist() if name in table.column_names else [None] * len(table) for name in names]
    for number, (custom_id, result, error) in enumerate(zip(*columns, strict=True)):
        key = f"{ledger.fingerprint}\0{shard}\0{number}"
        line: dict[str, Any] = {"id": identifier("batch_req_", key), "custom_id": custom_id}
        line |= _answered(json.loads(result), key, created) if error is None else _failed(error, key)
        yield (json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n").encode(), error is not None


def _answered(body: dict[str, Any], key: str, created: int) -> dict[str, Any]:
    prefix = _IDS.get(body["object"])
    if prefix is not None:
        body = {"id": identifier(prefix, f"{key}\0body"), "object": body.pop("object"), "created": created, **body}
    return {"response": _response(200, key, body), "error": None}


def _failed(error: Mapping[str, str], key: str) -> dict[str, Any]:
    code = _UNREAD.get(error["type"])
    if code is not None:
        return {"response": None, "error": {"code": code, "message": error["message"]}}
    status, body = error_response(error)
    return {"response": _response(status, key, body), "error": None}


def _response(status: int, key: str, body: Any) -> dict[str, Any]:
    return {"status_code": status, "request_id": identifier("req_", f"{key}\0request"), "body": body}
