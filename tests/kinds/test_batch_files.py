"""A job over an OpenAI batch file, its workers in this process, cut twice. With killed processes: tests/promises."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from rich.console import Console

from hfray.errors import DataError, SpecError
from hfray.kinds.progress import Progress
from hfray.kinds.report import Report
from hfray.kinds.score import ScoreRun
from hfray.spec.score import ScoreJob
from tests.kinds import in_process
from tests.models.lora_support import save_lora
from tests.models.support import save_decoder, save_model
from tests.tasks.openai.support import check_body

ABSENT = object()


def request(number: int, **changes: Any) -> str:
    messages = [{"role": "user", "content": f"text {number}"}]
    body = {"model": "decoder", "messages": messages, "max_tokens": 1 + number % 5, **changes.pop("body", {})}
    body = {name: value for name, value in body.items() if value is not ABSENT}
    line = {"custom_id": f"r-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body, **changes}
    return json.dumps(line)


class Desk:
    """Runs a batch of 40 requests in shards of 10. `most`: shards until a run is interrupted."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.most = 100
        self.write([request(number) for number in range(40)])

    def write(self, lines: Sequence[str]) -> None:
        (self.folder / "in.jsonl").write_text("".join(f"{line}\n" for line in lines))

    def run(self, **changes: Any) -> Report:
        spec: dict[str, Any] = {
            "name": "desk",
            "model": {"path": str(self.model), "dtype": "float32"},
            "task": {"name": "text-generation", "input": "messages"},
            "input": {"path": str(self.folder / "in.jsonl"), "format": "openai-batch"},
            "output": {"path": str(self.folder / "out")},
            "shard_rows": 10,
            "max_error_rate": 0.3,
        }
        job = ScoreJob.model_validate(spec | changes)
        with Progress(Console(file=io.StringIO()), quiet=True) as progress:
            run = ScoreRun(job, progress, job_path="job.yaml", log_path="", debug=False)
            return run.run(restart=False, retry_errors=False)

    def run_shards(
        self, cluster: Any, shards: Sequence[int], make_worker: Any, workers: Any, **how: Any
    ) -> Iterator[Any]:
        worker = make_worker(lambda tick: None, lambda facts: None)
        for number, shard in enumerate(shards):
            if number == self.most:
                raise KeyboardInterrupt
            yield worker.score(shard)
        if worker._predictor is not None:
            worker._predictor.engine.close()

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "out" / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(tmp_path_factory.mktemp("models") / "decoder")


@pytest.fixture
def desk(tmp_path: Path, decoder: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    each = Desk(tmp_path, decoder)
    in_process.use(monkeypatch, each.run_shards)
    return each


def test_every_request_is_in_one_of_the_files_once(desk: Desk) -> None:
    bad = {
        3: "no json", 7: '{"custom_id": "r-7", "body": {"mod', 11: request(11, url="/v1/embeddings"),
        18: request(18, body={"model": "other"}), 25: request(25, body={"temperature": 9}),
    }  # fmt: skip
    desk.write([bad.get(number, request(number)) for number in range(40)])
    desk.most = 1
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            desk.run()
        assert not (desk.folder / "out" / "output.jsonl").exists()
    desk.most = 100
    assert desk.run().failed == 5
    output, errors = desk.lines("output.jsonl"), desk.lines("error.jsonl")
    assert [line["custom_id"] for line in output] == [f"r-{number}" for number in range(40) if number not in bad]
    assert [line["custom_id"] for line in errors] == [None, "r-7", "r-11", "r-18", "r-25"]
    every = [*output, *errors]
    assert len({line["id"] for line in every}) == 40
    assert all(line["id"].startswith("batch_req_") for line in every)
    for line in output:
        assert set(line) == {"id", "custom_id", "response", "error"}
        assert (line["response"]["status_code"], line["error"]) == (200, None)
        body = line["response"]["body"]
        check_body(body, "CreateChatCompletionResponse")
        assert list(body)[:4] == ["id", "object", "created", "model"]
        assert body["usage"]["completion_tokens"] <= 1 + int(line["custom_id"][2:]) % 5
    assert len({line["response"]["request_id"] for line in every if line["response"]}) == 38
    for line in errors[:2]:
        assert (line["response"], line["error"]["code"]) == (None, "invalid_json_line")
    for line, status, param in zip(errors[2:], (400, 404, 400), ("url", "model", "temperature"), strict=True):
        assert (line["response"]["status_code"], line["error"]) == (status, None)
        check_body(line["response"]["body"], "ErrorResponse")
        assert line["response"]["body"]["error"]["param"] == param


def test_texts_and_embeddings_have_files_of_their_own(desk: Desk) -> None:
    """The other two endpoints of OpenAI's batches, whole jobs."""
    texts = [
        request(number, url="/v1/completions", body={"messages": ABSENT, "prompt": [f"a {number}", "b"]})
        for number in range(12)
    ]
    desk.write([*texts, request(12), request(13, url="/v1/completions", body={"messages": ABSENT})])
    assert desk.run(task={"name": "text-generation", "input": "prompt"}, max_error_rate=0.9).failed == 2
    for line in desk.lines("output.jsonl"):
        body = line["response"]["body"]
        check_body(body, "CreateCompletionResponse")
        assert [choice["index"] for choice in body["choices"]] == [0, 1]
    errors = desk.lines("error.jsonl")
    assert [line["custom_id"] for line in errors] == ["r-12", "r-13"]
    assert [line["response"]["body"]["error"]["param"] for line in errors] == ["url", "prompt"]
    assert all(set(line) == {"id", "custom_id", "response", "error"} for line in errors)
    assert all(set(line["response"]) == {"status_code", "request_id", "body"} for line in errors)

    shutil.rmtree(desk.folder / "out")
    encoder = save_model(desk.folder / "encoder", "AutoModel")
    body = {"messages": ABSENT, "max_tokens": ABSENT, "model": "encoder"}
    desk.write(
        [
            request(number, url="/v1/embeddings", body={**body, "input": [f"a {number}", "b"]} | more)
            for number, more in enumerate(({}, {"encoding_format": "base64"}, {"input": []}, {"input": "a 0"}))
        ]
    )
    report = desk.run(
        model={"path": str(encoder), "dtype": "float32"}, task={"name": "feature-extraction"}, max_error_rate=0.9
    )
    assert report.failed == 1
    output = [line["response"]["body"] for line in desk.lines("output.jsonl")]
    for found in (output[0], output[2]):
        check_body(found, "CreateEmbeddingResponse")
    first, packed, alone = ([each["embedding"] for each in found["data"]] for found in output)
    assert len(first) == len(packed) == 2
    assert np.frombuffer(base64.b64decode(packed[1]), np.float32).tolist() == pytest.approx(first[1], abs=1e-6)
    assert alone[0] == pytest.approx(first[0], abs=1e-5)
    assert [line["custom_id"] for line in desk.lines("error.jsonl")] == ["r-2"]


def test_the_files_are_the_same_after_their_parts_are_written_as_json(desk: Desk) -> None:
    desk.run()
    wanted = desk.lines("output.jsonl")
    shutil.rmtree(desk.folder / "out")
    desk.run(output={"path": str(desk.folder / "out"), "format": "jsonl"}, engine={"name": "batch"})
    found = desk.lines("output.jsonl")
    assert [line["response"]["body"]["choices"] for line in found] == [
        line["response"]["body"]["choices"] for line in wanted
    ], "whatever the engine and the format of the parts"
    assert desk.lines("error.jsonl") == []


def test_one_batch_is_one_file_with_one_name_for_each_request(desk: Desk) -> None:
    (desk.folder / "more.jsonl").write_text(request(1))
    paths = [str(desk.folder / name) for name in ("in.jsonl", "more.jsonl")]
    with pytest.raises(SpecError, match="2 batch files"):
        desk.run(input={"path": paths, "format": "openai-batch"})
    desk.write([request(1), request(1)])
    with pytest.raises(DataError, match="custom_id 'r-1' is in the requests 1 and 2"):
        desk.run()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": {"name": "summarization"}}, "nothing for task summarization"),
        ({"metrics": {"label": "x"}}, "which no metric reads"),
    ],
)
def test_jobs_that_no_batch_file_fits_are_refused(desk: Desk, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        desk.run(**changes)


def test_a_request_names_an_adapter_as_its_model(desk: Desk) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(desk.model)
    save_lora(model, desk.folder / "tuned", target_modules=["q_proj", "down_proj"])
    messages = [{"role": "user", "content": "a b c"}]
    lines = [request(number, body={"messages": messages, "max_tokens": 9}) for number in range(3)]
    lines[1] = request(1, body={"model": "tuned", "messages": messages, "max_tokens": 9})
    desk.write(lines)
    adapters = {"tuned": str(desk.folder / "tuned")}
    desk.run(model={"path": str(desk.model), "dtype": "float32", "adapters": adapters})
    bodies = [line["response"]["body"] for line in desk.lines("output.jsonl")]
    assert [body["model"] for body in bodies] == ["decoder", "tuned", "decoder"]
    texts = [body["choices"][0]["message"]["content"] for body in bodies]
    assert texts[0] == texts[2] != texts[1]
    identity = json.loads((desk.folder / "out" / "_work" / "identity.json").read_text())
    assert set(identity["model"]["adapters"]["tuned"]) == {"content"}
    with pytest.raises(SpecError, match="begun with another job"):
        desk.run()
