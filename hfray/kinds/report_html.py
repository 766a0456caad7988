"""`report.html`: one page that opens without a network. Knows HTML and a `Report`; nothing is computed here.

Everything that came from outside (names, labels, messages, paths, the spec) is escaped, and the page's own
content-security policy forbids scripts and any request.
"""

from __future__ import annotations

import math
import shlex
from html import escape

from hfray.inference.receipt import LENGTH_BINS, NUM_SCORE_BINS
from hfray.kinds import charts, corpus_html, html, training_html, units
from hfray.kinds.report import ModelFacts, Report
from hfray.kinds.report_style import STYLE

MAX_SESSIONS = 50
MAX_LABEL_BARS = 12
MAX_FILE_FAILURES = 50

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def render(report: Report) -> str:
    """The whole page."""
    cards = [
        *(corpus_html.cards(report.corpus) if report.corpus else ()),
        *(training_html.cards(report.training) if report.training else ()),
        _throughput(report),
        _lengths(report),
        _labels(report),
        _scores(report),
        _tokens(report),
        _metrics(report),
        _failures(report),
        _model(report.model) if report.model else "",
        _run(report),
    ]
    title = escape(f"{report.name} · {report.kind} · hfray")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{charts.STYLE}{STYLE}</style>
</head>
<body>
<main>
{_header(report)}
<section class="tiles">
{_tiles(report)}
</section>
{_file_failures(report)}
<section class="cards">
{chr(10).join(card for card in cards if card)}
</section>
{_sessions(report)}
{_spec(report)}
{_footer(report)}
</main>
</body>
</html>
"""


def _header(report: Report) -> str:
    model = f"with {report.model.path}" if report.model else ""
    when = units.moment(report.started_at) if report.started_at else ""
    sub = " · ".join(filter(None, (" ".join(filter(None, (report.kind, report.task, model))), when)))
    reason = f'<p class="reason">{escape(report.message)}</p>' if report.message else ""
    status = f'<span class="status {report.status}">{report.status}</span>'
    return f'<header><h1>{escape(report.name)}</h1>{status}<p class="sub">{escape(sub)}</p>{reason}</header>'


def _tiles(report: Report) -> str:
    tiles = _row_tiles(report) if report.training is None else training_html.tiles(report.training)
    busy = f", {100 * report.busy_share:.0f} % busy" if report.busy_s else ""
    note = f"{units.plural(report.workers, 'worker')}{busy}" if report.workers else ""
    tiles.append(html.tile("wall time", units.duration(report.wall_s), note))
    return "\n".join(tiles)


def _row_tiles(report: Report) -> list[str]:
    resumed = f"{units.count(report.resumed_rows)} from earlier sessions" if report.resumed_rows else ""
    rows = report.rows if report.corpus is None else report.corpus.source_rows
    what = "rows" if report.corpus is None else "examples"
    tiles = [html.tile(what, units.count(report.rows), resumed or units.plural(report.shards, "shard"))]
    note = f"{units.percent(report.failed, rows)} of the rows"
    tiles.append(html.tile("failed", units.count(report.failed), note, "bad" if report.failed else ""))
    if report.kind == "export":
        tiles = [html.tile("saved", units.size(report.size_bytes), "")]
    if report.rows_per_s:
        note = f"over {units.duration(report.scoring_s or report.wall_s)}"
        what = "rows" if report.corpus is None else "documents"
        tiles.append(html.tile(f"{what} per second", units.count(report.rows_per_s), note))
    if report.tokens_per_s:
        tiles.append(
            html.tile("tokens per second", units.count(report.tokens_per_s), f"{units.short(report.tokens)} in all")
        )
    if report.generated_tokens:
        tiles.append(html.tile("generated tokens", units.short(report.generated_tokens), ""))
    if report.padded_tokens and report.corpus is None:
        tiles.append(html.tile("padding waste", f"{100 * report.padding_waste:.1f} %", "of computed positions"))
    return tiles


def _throughput(report: Report) -> str:
    if not report.throughput:
        return ""
    points = [(at_s, rows_per_s) for at_s, rows_per_s, _ in report.throughput]
    chart = charts.area(points, title="rows per second over time", unit="rows/s", end_s=report.scoring_s)
    return html.card("Throughput", chart, "this session's rows" if report.resumed_rows else "")


def _lengths(report: Report) -> str:
    if not report.lengths:
        return ""
    edges = (0, *LENGTH_BINS, math.inf)
    noun = "items" if report.corpus is None else "examples"
    chart = charts.histogram(edges, report.lengths, title=f"{noun} by length", unit="tokens", noun=noun)
    note = f"{units.count(sum(report.lengths))} {noun}"
    if report.truncated and report.corpus is not None:
        note += f", {units.percent(report.truncated, report.corpus.documents)} of the rows cut"
    return html.card("Length of the inputs", chart, note)


def _labels(report: Report) -> str:
    if not report.labels:
        return ""
    named = sorted(((name, number) for name, number in report.labels.items() if name), key=lambda pair: -pair[1])
    rest = report.labels.get("", 0) + sum(number for _, number in named[MAX_LABEL_BARS:])
    shown = named[:MAX_LABEL_BARS] + ([("", rest)] if rest else [])
    note = f"{MAX_LABEL_BARS} most frequent of {len(named):,}" if len(named) > MAX_LABEL_BARS else f"{len(named):,}"
    return html.card("Labels", charts.bars(shown, title="rows by label"), note)


def _scores(report: Report) -> str:
    if not report.scores:
        return ""
    edges = [index / NUM_SCORE_BINS for index in range(NUM_SCORE_BINS + 1)]
    chart = charts.histogram(edges, report.scores, title="rows by score", unit="score")
    return html.card("Scores", chart, f"{units.count(sum(report.scores))} rows")


def _tokens(report: Report) -> str:
    if not report.padded_tokens or report.corpus is not None:
        return ""
    split = [("tokens", report.tokens), ("padding", max(0, report.padded_tokens - report.tokens))]
    chart = charts.share(split, title="tokens and padding", noun="positions")
    return html.card("Padding waste", chart, f"of {units.short(report.padded_tokens)} computed positions")


def _metrics(report: Report) -> str:
    if not report.metrics:
        return ""
    rows = [(name, "n/a" if value is None else f"{value:.6g}") for name, value in report.metrics.items()]
    return html.card("Metrics", html.table(("metric", "value"), rows, num=(1,)))


def _failures(report: Report) -> str:
    if not report.failed:
        return ""
    ranked = sorted(report.error_types.items(), key=lambda pair: (-pair[1], pair[0]))
    rows = [
        (name or "other types", units.count(number), units.percent(number, report.failed)) for name, number in ranked
    ]
    body = html.table(("type", "rows", "share"), rows, num=(1, 2))
    if report.corpus is not None:
        body += "<p>They are in <code>errors.parquet</code>, with file, row number and reason.</p>"
        return html.card(
            "Failed rows", body, f"{units.count(report.failed)} of {units.count(report.corpus.source_rows)}"
        )
    command = f"hfray run {shlex.quote(report.job or 'JOB.yaml')} --retry-errors"
    body += (
        "<p>Each row's reason is in its column <code>error</code>, all of them are in <code>errors.parquet</code>. "
        f'To score only these rows again:</p><code class="command">{escape(command)}</code>'
    )
    return html.card("Failed rows", body, f"{units.count(report.failed)} of {units.count(report.rows)}")


def _file_failures(report: Report) -> str:
    if not report.file_failures:
        return ""
    rows = [(failure.path, failure.message) for failure in report.file_failures[:MAX_FILE_FAILURES]]
    body = "<p>Their rows are missing from the output.</p>" + html.table(("file", "reason"), rows)
    return html.card("Files that could not be read", body, f"{len(report.file_failures):,}")


def _model(model: ModelFacts) -> str:
    before, after = model.bytes_before, model.bytes_after
    memory = units.size(after) if after is not None else ""
    if before is not None and after is not None and before != after:
        memory = f"{units.size(after)}, stored as {units.size(before)}"
    facts = (
        ("path", model.path),
        ("revision", model.revision or ""),
        ("architecture", model.architecture or ""),
        ("parameters", units.count(model.parameters) if model.parameters else ""),
        ("dtype", model.dtype or ""),
        ("quantization", model.quantization),
        ("adapter", model.adapter or ""),
        ("memory", memory),
        ("device", model.device or ""),
    )
    return html.card("Model", html.facts(facts))


def _run(report: Report) -> str:
    facts = [
        ("output", report.output),
        (
            "parts",
            f"{units.plural(report.shards, 'part')}, {units.size(report.size_bytes)}" if report.size_bytes else "",
        ),
        ("truncated", f"{units.plural(report.truncated, 'row')}" if report.truncated else ""),
        ("log", report.log),
        ("fingerprint", report.fingerprint),
        ("versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
    ]
    return html.card("Run", html.facts(facts))


def _sessions(report: Report) -> str:
    if not report.sessions:
        return ""
    counted = ("rows", "failed", "shards") if report.training is None else ("steps",)
    rows = [
        (
            units.moment(session.started_at),
            session.status,
            units.duration(session.wall_s),
            *(units.count(each) for each in (session.rows, session.failed, session.shards)[: len(counted)]),
            units.count(session.workers),
        )
        for session in report.sessions[-MAX_SESSIONS:]
    ]
    names = ("started", "ended as", "time", *counted, "workers")
    note = f"last {MAX_SESSIONS} of {len(report.sessions):,}" if len(report.sessions) > MAX_SESSIONS else ""
    table = html.table(names, rows, num=range(2, len(names)), css="scroll fixed")
    return html.card("Sessions", table, note)


def _spec(report: Report) -> str:
    if not report.spec:
        return ""
    body = f"<details><summary>Resolved spec</summary><pre>{escape(report.spec)}</pre></details>"
    return f'<div class="card">{body}</div>'


def _footer(report: Report) -> str:
    version = report.versions.get("hfray", "")
    return f"<footer>{escape(f'hfray {version}'.strip())} · the same figures are in report.json</footer>"
