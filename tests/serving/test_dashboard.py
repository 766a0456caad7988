"""The dashboard asks for metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUFFIXES = ("_total", "_bucket")


def test_every_metric_of_the_dashboard_is_kept() -> None:
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "endpoints.json").read_text())
    asked = {
        name for panel in dashboard["panels"] for target in panel["targets"]
        for name in re.findall(r"ray_(hfray_\w+)", target["expr"])
    }  # fmt: skip
    source = "".join((ROOT / "hfray" / "serving" / f"{name}.py").read_text() for name in ("meters", "model_meters"))
    kept = {f"hfray_{name}" for name in re.findall(r'"hfray_(\w+)"', source)}
    kept |= {f"hfray_{name}" for name in re.findall(r'seconds\(\s*"(\w+)"', source)}
    kept |= {f"hfray_model_{name}" for name in re.findall(r'^\s+\("(\w+)", "', source, re.MULTILINE)}
    assert len(asked) > 10
    for name in asked:
        plain = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
        assert plain in kept, name
