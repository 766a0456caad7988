"""A batch file of 1,000 requests, one in a hundred broken, whose job is killed twice: each request is answered once."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.models.support import save_decoder
from tests.promises import undisturbed
from tests.promises.rig import Observer, Rig, seeds

NUM_REQUESTS = 1000
BROKEN = {
    97: '{"custom_id": "r-97", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "de',
    197: {"url": "/v1/embeddings"}, 297: {"method": "GET"}, 397: {"body": None}, 497: {"body": {"model": "other"}},
    597: {"body": {"temperature": 5}}, 697: {"body": {"messages": []}}, 797: {"body": {"max_tokens": 100_000}},
    897: {"body": {"messages": [{"role": "user", "content": "a\0"}]}}, 997: {"body": {"unheard_of": 1}},
}  # fmt: skip


def request(number: int) -> str:
    broken: Any = BROKEN.get(number, {})
    if isinstance(broken, str):
        return broken
    messages = [{"role": "user", "content": f"text {number} " + "word " * (number % 7)}]
    body: Any = {"model": "decoder", "messages": messages, "max_tokens": 1 + number % 6}
    if number % 3 == 0:
        body |= {"temperature": 1.2, "n": 1 + number % 2, "seed": number}
    changed = broken.get("body", {})
    body = None if changed is None else body | changed
    plain = {"custom_id": f"r-{number}", "method": "POST", "url": "/v1/chat/completions"}
    return json.dumps(plain | broken | {"body": body})


@pytest.mark.parametrize("seed", seeds(1, 20))
def test_a_batch_killed_twice_answers_each_request_once(rig: Rig, seed: int) -> None:
    dice = random.Random(seed)
    source = rig.folder / "requests.jsonl"
    source.write_text("".join(f"{request(number)}\n" for number in range(NUM_REQUESTS)))
    job = rig.job(
        source,
        seconds_per_item=None,
        model={"path": str(save_decoder(rig.folder / "decoder")), "dtype": "float32"},
        task={"name": "text-generation", "input": "messages"},
        input={"path": str(source), "format": "openai-batch"},
        shard_rows=50,
    )
    rig.fault("slow", "0.1")
    with Observer(rig.output):
        run = rig.start(job)
        rig.wait_for(lambda: rig.num_parts() >= 1, run)
        time.sleep(dice.uniform(0, 1))
        run.kill()
        first = rig.num_parts()
        if seed % 2:
            run = rig.start(job)
            rig.wait_for(lambda: rig.num_parts() > first, run)
            time.sleep(dice.uniform(0, 1))
            run.kill()
        else:  # when both files are there, and the job is not complete
            rig.fault("kill-before", "/_SUCCESS")
            assert rig.start(job).wait() == -9
        assert not (rig.output / "_SUCCESS").exists()
        rig.run(job)
    print(f"seed {seed}: killed with {first} of 20 parts")
    output, errors = (_lines(rig.output / name) for name in ("output.jsonl", "error.jsonl"))
    found = Counter(line["custom_id"] for line in [*output, *errors])
    assert found == Counter(f"r-{number}" for number in range(NUM_REQUESTS))
    assert [line["custom_id"] for line in errors] == [f"r-{number}" for number in sorted(BROKEN)]
    assert all(line["response"]["status_code"] == 200 for line in output)
    alone = undisturbed.run(job, rig.folder / "undisturbed")
    for part in sorted((alone / "data").iterdir()):
        assert (rig.output / "data" / part.name).read_bytes() == part.read_bytes()


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
