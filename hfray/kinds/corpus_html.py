"""The cards of a tokenised corpus on the report's page. Knows HTML and a `Corpus`; nothing is computed here."""

from __future__ import annotations

from html import escape

from hfray.kinds import charts, html, units
from hfray.kinds.corpus import BATCH_SIZES, Corpus


def cards(corpus: Corpus) -> list[str]:
    """From the rows to the examples, what they fill, how long training takes, and what they look like."""
    return [
        each for each in (_steps(corpus), _splits(corpus), _filled(corpus), _training(corpus), _samples(corpus)) if each
    ]


def _steps(corpus: Corpus) -> str:
    rows = [("rows of the input", units.count(corpus.source_rows))]
    rows += [(f"left out by {step}", f"-{units.count(count)}") for step, count in corpus.left_out.items()]
    failed = corpus.source_rows - sum(corpus.left_out.values()) - corpus.documents
    if failed:
        rows.append(("failed", f"-{units.count(failed)}"))
    rows += [("documents", units.count(corpus.documents)), ("examples", units.count(corpus.examples))]
    return html.card("From rows to examples", html.table(("step", "rows"), rows, num=(1,)), f"mode {corpus.mode}")


def _splits(corpus: Corpus) -> str:
    if len(corpus.splits) < 2:
        return ""
    rows = [
        (each.name, units.count(each.examples), units.count(each.tokens), units.percent(each.tokens, corpus.tokens))
        for each in corpus.splits
    ]
    return html.card("Splits", html.table(("split", "examples", "tokens", "share of tokens"), rows, num=(1, 2, 3)))


def _filled(corpus: Corpus) -> str:
    if corpus.packing_efficiency is None:
        return ""
    shares = [("tokens", corpus.tokens), ("padding", max(0, corpus.capacity_tokens - corpus.tokens))]
    note = f"{100 * corpus.packing_efficiency:.2f} % of {units.short(corpus.capacity_tokens)} places"
    return html.card("Packing", charts.share(shares, title="tokens and padding", noun="places"), note)


def _training(corpus: Corpus) -> str:
    rows = [(units.count(size), units.count(corpus.steps(size))) for size in BATCH_SIZES if size <= corpus.examples]
    table = html.table(("global batch size", "optimizer steps of one epoch"), rows, num=(0, 1))
    return html.card("Training", table, f"over {corpus.splits[0].name}") if rows else ""


def _samples(corpus: Corpus) -> str:
    body = "".join(f"<pre>{escape(each)}</pre>" for each in corpus.samples)
    return html.card("The first examples", body, "decoded, special tokens included") if body else ""
