"""What answers without a model answers without importing what runs one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {
    "accelerate", "bitsandbytes", "datasets", "deepspeed", "fsspec", "huggingface_hub", "obstore", "pandas", "peft",
    "pyarrow", "ray", "rouge_score", "sacrebleu", "safetensors", "scipy", "tokenizers", "torch", "transformers",
}  # fmt: skip
LIGHT = (
    "errors", "types", "log", "tasks", "spec.load", "spec.explain", "spec.train",
    "submit.resolve", "submit.attempts", "submit.runtime", "kinds.dashboard",
    "serving.guard", "serving.leases", "serving.wire", "serving.json_body",
)  # fmt: skip

PROGRAM = """
import sys
from hfray.cli import app
try:
    app(sys.argv[1:], prog_name="hfray")
except SystemExit as end:
    assert not end.code, end.code
print("imported:", *{name.partition(".")[0] for name in sys.modules})
"""


def imported_by(program: str, *arguments: str) -> set[str]:
    """The top-level packages that a fresh interpreter has imported in the end."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "command",
    [
        ["check", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("jobs/*.yaml"))],
        ["explain"],
        ["explain", "--schema"],
        ["tasks"],
        ["run", "--help"],
        ["submit", "--help"],
        ["render", "kuberay", "--cluster", "--set", "workers.max=2"],
        ["render", "kuberay", "jobs/train-banking-lora.yaml", "--volume", "data:/data"],
        ["render", "kuberay", "serve_configs/chat.yaml"],
        ["--version"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
@pytest.mark.slow
def test_commands_about_jobs_import_nothing_heavy(command: list[str]) -> None:
    assert not imported_by(PROGRAM, *command) & HEAVY


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    program = f"import sys, hfray.{module}; print('imported:', *sys.modules)"
    assert not {name.partition(".")[0] for name in imported_by(program)} & HEAVY


def test_the_test_would_notice() -> None:
    assert "pyarrow" in imported_by("import sys, hfray.data.plan; print('imported:', *sys.modules)")
