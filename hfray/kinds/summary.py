"""The table at the end of a run. Knows a report and a console; nothing is computed here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hfray.kinds import units
from hfray.kinds.training_summary import training_figures

if TYPE_CHECKING:
    from hfray.kinds.corpus import Corpus, Vocabulary
    from hfray.kinds.report import ModelFacts, Report


def print_summary(report: Report, console: Console) -> None:
    """Prints the table at the end of a run."""
    console.print()
    console.print(_title(report), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False, padding=(0, 2, 0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for label, value, note, style in _figures(report):
        table.add_row(label, Text(value, style=style), Text(note))
    console.print(table)
    # Paths are printed whole: a wrapped one cannot be copied, a cut one cannot be found.
    lines = _lines(report)
    width = max([8, *(len(label) + 2 for label, _ in lines)])
    for label, text in lines:
        line = Text.assemble((f" {label:<{width}}", "dim"), units.printable(text))
        console.print(line, soft_wrap=True, highlight=False)
    if report.failed and report.job and report.kind == "score":
        command = Text.assemble(
            (" retry   ", "dim"), f"hfray run {shlex.quote(units.printable(report.job))} --retry-errors"
        )
        console.print(command, soft_wrap=True, highlight=False)


def _lines(report: Report) -> list[tuple[str, str]]:
    """What stands below the table: label, text."""
    found = [("output", report.output), ("log", report.log)]
    if report.training is not None:
        found = [("deepspeed", report.training.deepspeed), ("model", report.output), ("log", report.log)]
    return [(label, text) for label, text in found if text]


def _title(report: Report) -> Text:
    style = {"complete": "bold green", "failed": "bold red", "interrupted": "bold yellow"}[report.status]
    what = " ".join(filter(None, (report.kind, report.task, f"with {report.model.path}" if report.model else "")))
    title = Text.assemble(" ", (units.printable(report.name), "bold"), "  ", (report.status, style))
    title.append(f"  {units.printable(what)}", style="dim")
    if report.message:
        title.append(f"\n {units.printable(report.message)}")
    return title


def _figures(report: Report) -> list[tuple[str, str, str, str]]:
    """Rows of the table: label, value, note, style of the value."""
    if report.training is not None:
        return training_figures(report, report.training)
    resumed = f"{units.count(report.resumed_rows)} resumed from earlier runs" if report.resumed_rows else ""
    what = "rows" if report.corpus is None else "examples"
    rows = [(what, units.count(report.rows), _joined(units.plural(report.shards, "shard"), resumed), "bold")]
    if report.kind == "export":
        rows = [("saved", units.size(report.size_bytes), "", "bold")]
    if report.corpus is not None:
        rows += _corpus(report.corpus)
    if report.vocabulary is not None:
        rows += _vocabulary(report.vocabulary)
    if report.failed:
        of = report.rows if report.corpus is None else report.corpus.source_rows
        rows.append(("failed", units.count(report.failed), units.percent(report.failed, of), "bold red"))
        rows += [("", units.count(number), units.printable(name), "") for name, number in _largest(report.error_types)]
    for failure in report.file_failures[:5]:
        rows.append(("unread", "file", f"{units.printable(failure.path)}: {units.printable(failure.message)}", "red"))
    if len(report.file_failures) > 5:
        rows.append(("", "", f"and {units.plural(len(report.file_failures) - 5, 'file')} more", ""))
    if report.rows_per_s:
        what = "rows/s" if report.corpus is None else "documents/s"
        rows.append((what, units.count(report.rows_per_s), _workers(report), ""))
    if report.tokens_per_s:
        rows.append(("tokens/s", units.count(report.tokens_per_s), _tokens(report), ""))
    if report.generated_tokens:
        rows.append(("generated", units.count(report.generated_tokens), "tokens", ""))
    scoring = f"{units.duration(report.scoring_s)} {report.activity}" if report.scoring_s else ""
    rows.append(("time", units.duration(report.wall_s), scoring, ""))
    if report.model and report.model.bytes_after:
        rows.append(("model", units.size(report.model.bytes_after), _model(report.model), ""))
    for name, value in report.metrics.items():
        rows.append((units.printable(name), "n/a" if value is None else f"{value:.4g}", "", "bold"))
    return rows


def _corpus(corpus: Corpus) -> list[tuple[str, str, str, str]]:
    steps = ", ".join(f"{units.count(count)} left out by {step}" for step, count in corpus.left_out.items())
    rows = [
        ("documents", units.count(corpus.documents), _joined(f"of {units.count(corpus.source_rows)} rows", steps), "")
    ]
    if len(corpus.splits) > 1:
        rows += [
            ("", units.count(each.examples), f"{each.name}, {units.short(each.tokens)} tokens", "")
            for each in corpus.splits
        ]
    if corpus.packing_efficiency is not None:
        rows.append(("filled", f"{100 * corpus.packing_efficiency:.2f} %", f"of {corpus.max_length:,} tokens each", ""))
    return rows


def _vocabulary(vocabulary: Vocabulary) -> list[tuple[str, str, str, str]]:
    skipped = f"{units.count(vocabulary.num_skipped)} skipped" if vocabulary.num_skipped else ""
    learned = f"learned in {units.duration(vocabulary.learned_s)}"
    return [
        (
            "texts",
            units.count(vocabulary.num_texts),
            _joined(f"{units.short(vocabulary.num_chars)} characters", skipped),
            "",
        ),
        ("vocabulary", units.count(vocabulary.size), _joined("tokens", learned), "bold"),
    ]


def _workers(report: Report) -> str:
    if not report.workers:
        return ""
    return _joined(
        units.plural(report.workers, "worker"), f"{100 * report.busy_share:.0f} % busy" if report.busy_s else ""
    )


def _tokens(report: Report) -> str:
    padding = f"{100 * report.padding_waste:.1f} % padding" if report.padded_tokens else ""
    truncated = f"{units.plural(report.truncated, 'row')} truncated" if report.truncated else ""
    return _joined(f"{units.short(report.tokens)} tokens", padding, truncated)


def _model(model: ModelFacts) -> str:
    parameters = f"{units.short(model.parameters)} parameters" if model.parameters else ""
    quantization = model.quantization if model.quantization != "none" else ""
    changed = model.bytes_before is not None and model.bytes_before != model.bytes_after
    before = f"was {units.size(model.bytes_before or 0)}" if changed else ""
    return _joined(parameters, model.dtype or "", quantization, before, model.device or "")


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _largest(counts: Mapping[str, int], limit: int = 5) -> list[tuple[str, int]]:
    """The largest counts, the remaining ones as one line."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = sum(number for _, number in ranked[limit:])
    return ranked[:limit] + ([("other types", rest)] if rest else [])
