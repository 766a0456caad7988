"""The endpoint of the README, by the commands that its file names."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.promises.endpoints import Endpoints, free_port
from tests.promises.rig import REPOSITORY, environment

pytestmark = pytest.mark.slow

FILE = REPOSITORY / "serve_configs" / "quickstart.yaml"


def test_the_quickstart_endpoint_answers_and_ends(tmp_path: Path, faults: Path) -> None:
    port = free_port()
    text = FILE.read_text().replace("8000", str(port))
    (tmp_path / "quickstart.yaml").write_text(text)
    serve, curl = (line.removeprefix("#").strip() for line in text.splitlines()[1:3])
    assert serve == "hfray serve serve_configs/quickstart.yaml"
    each = Endpoints(tmp_path, faults, port)
    command = [sys.executable, "-m", "hfray.cli", "serve", str(tmp_path / "quickstart.yaml")]
    with each.log.open("w") as log:
        each.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment(faults))
    try:
        each.wait_until(lambda: "Ctrl-C ends it" in each.text(), 180)
        each.wait_until(each.ready, 30)
        assert f"http://127.0.0.1:{port}/models/minilm" in each.text()
        said = subprocess.run([*shlex.split(curl), "--silent", "--fail"], capture_output=True, text=True, check=True)
        vector = np.array(json.loads(said.stdout))
        assert vector.shape == (1, 384)
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-4)
        each.process.send_signal(signal.SIGINT)
        assert each.process.wait(60) == 0, each.text()
        assert not each.tree()
    finally:
        if each.process.poll() is None:
            each.close()
