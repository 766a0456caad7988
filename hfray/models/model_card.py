"""`README.md` of a model that hfray made, as the hub shows it. Knows facts; opens no file.

Front matter: https://huggingface.co/docs/hub/model-cards#model-card-metadata. No path of a machine enters the card, and
the licence is left to the author.
"""

from __future__ import annotations

from typing import Any

from hfray.models.result import ResultFacts
from hfray.spec.yaml_lines import dump
from hfray.tasks import TASKS

HUB_DATA = "hf://datasets/"
_PARTS = {"lora": "LoRA", "qlora": "QLoRA", "full": "full fine-tuning"}


def model_card(facts: ResultFacts, *, title: str | None = None, curve: str | None = None) -> str:
    """The whole text. title: by default the job's name; curve: the file beside it that pictures the training."""
    title = title or facts.name
    parts = [
        f"---\n{dump(front_matter(facts, title))}---\n",
        f"# {_plain(title)}\n",
        f"{_summary(facts)}\n",
        _table("Facts", ("", ""), _facts(facts)),
        _metrics(facts),
        f"## Training curve\n\n![training curve]({curve})\n" if curve else "",
        _usage(facts, title),
        "## Licence\n\nNot stated yet: add `license:` to the head of this file. The base model's and the data's terms "
        "hold for what is made of them.\n",
        f"Made with [hfray](https://github.com/hfray/hfray){_versions(facts)}; `hfray.json` has the whole job.\n",
    ]
    return "\n".join(part for part in parts if part)


def front_matter(facts: ResultFacts, title: str) -> dict[str, Any]:
    """The head of the card, as plain values."""
    task = facts.task.get("name")
    head: dict[str, Any] = {}
    attached = facts.adapter is not None and not facts.adapter.merged
    if facts.base is not None and facts.base.revision is not None:
        head["base_model"] = facts.base.path
        head["base_model_relation"] = (
            "adapter" if attached else "quantized" if facts.quantization != "none" else "finetune"
        )
    head["library_name"] = "peft" if attached else "transformers"
    if task is not None:
        head["pipeline_tag"] = str(task)
    tags = ["hfray", *(["lora"] if facts.method.get("name") in ("lora", "qlora") else [])]
    head["tags"] = tags + ([facts.quantization] if facts.quantization != "none" else [])
    if hub_data := _hub_data(facts):
        head["datasets"] = hub_data
    measured = {name: value for name, value in facts.metrics.items() if value is not None}
    if measured and task is not None:
        head["metrics"] = list(measured)
        name = hub_data[0] if hub_data else "validation examples"
        results = [{"type": each, "value": value, "name": each.replace("_", " ")} for each, value in measured.items()]
        head["model-index"] = [
            {
                "name": title,
                "results": [
                    {
                        "task": {"type": str(task)},
                        "dataset": {"type": hub_data[0] if hub_data else "custom", "name": name},
                        "metrics": results,
                    }
                ],
            }
        ]
    return head


def _summary(facts: ResultFacts) -> str:
    base = "a model trained from scratch" if facts.base is None else _base(facts)
    task = facts.task.get("name")
    what = f" for {task}" if task is not None else ""
    tuned = facts.method.get("name")
    if facts.kind == "train":
        how = f"tuned by {_PARTS.get(str(tuned), tuned)}" if tuned else "trained"
        return f"{_upper(base)}, {how}{what}."
    steps = ["its adapter merged"] if facts.adapter is not None and facts.adapter.merged else []
    steps += [f"quantised to {facts.quantization}"] if facts.quantization != "none" else []
    return f"{_upper(base)}{what}, {' and '.join(steps) or f'saved in {facts.dtype}'}."


def _base(facts: ResultFacts) -> str:
    if facts.base is None or facts.base.revision is None:
        return "a model of its author"
    return f"[{facts.base.path}](https://huggingface.co/{facts.base.path}) at `{facts.base.revision[:12]}`"


def _facts(facts: ResultFacts) -> list[tuple[str, str]]:
    method = ", ".join(f"{key} {_short(value)}" for key, value in facts.method.items() if key != "name")
    rows = [
        ("architecture", facts.architecture),
        ("parameters", None if facts.parameters is None else f"{facts.parameters:,}"),
        ("precision", facts.dtype if facts.quantization == "none" else f"{facts.quantization}, rest {facts.dtype}"),
        ("method", f"{facts.method.get('name')}{f': {method}' if method else ''}" if facts.method else None),
        ("labels", ", ".join(facts.labels[:20]) + (", ..." if len(facts.labels) > 20 else "")),
        ("data", ", ".join(_hub_data(facts)) or None),
        ("data fingerprint", _digest(facts.data_fingerprint)),
        ("tokenizer fingerprint", _digest(facts.tokenizer_fingerprint)),
        ("chat template fingerprint", _digest(facts.chat_template_fingerprint)),
        *((name.replace("_", " "), _short(value)) for name, value in facts.training.items() if value is not None),
    ]
    return [(name, value) for name, value in rows if value]


def _metrics(facts: ResultFacts) -> str:
    rows = [(name, "n/a" if value is None else f"{value:.4g}") for name, value in facts.metrics.items()]
    if not rows:
        return ""
    quantised = facts.kind == "export" and facts.quantization != "none"
    note = "Measured before the weights were quantised.\n\n" if quantised else ""
    return _table("Metrics", ("metric", "on the validation examples"), rows, note)


def _usage(facts: ResultFacts, title: str) -> str:
    task = facts.task.get("name")
    if task not in TASKS:
        return ""
    job = {
        "kind": "score",
        "name": "score",
        "model": {"path": title},
        "task": {"name": task},
        "input": {"path": "rows.csv"},
        "output": {"path": "out/scored"},
    }
    return f"## Use\n\nA job for `hfray run JOB.yaml`:\n\n```yaml\n{dump(job)}```\n"


def _table(title: str, head: tuple[str, str], rows: list[tuple[str, str]], note: str = "") -> str:
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    return f"## {title}\n\n{note}| {head[0]} | {head[1]} |\n|---|---|\n" + "\n".join(lines) + "\n"


def _versions(facts: ResultFacts) -> str:
    named = [f"{name} {version}" for name, version in facts.versions.items()]
    return f" ({', '.join(named)})" if named else ""


def _hub_data(facts: ResultFacts) -> list[str]:
    """Data sets of the hub; a path of a machine says nothing to others."""
    paths = [path.removeprefix(HUB_DATA).partition("@")[0] for path in facts.data if path.startswith(HUB_DATA)]
    return list(dict.fromkeys("/".join(path.split("/")[:2]) for path in paths))


def _digest(text: str | None) -> str | None:
    return None if text is None else f"`{text[:16]}`"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cell(text: str) -> str:
    """A label may hold anything: nothing in it may end the cell or begin markup."""
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;")
