"""The style sheet of `report.html`. Its colours are the variables of `charts.STYLE`."""

from __future__ import annotations

STYLE = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: .25rem .75rem; margin-bottom: 1.25rem; }
h1 { font-size: 1.6rem; font-weight: 650; letter-spacing: -.01em; margin: 0;
  overflow-wrap: anywhere; line-height: 1.25; }
h2 { font-size: .95rem; font-weight: 600; margin: 0 0 .7rem; }
h2 small { font-weight: 400; color: var(--muted); font-size: .82rem; margin-left: .4rem; }
p { margin: .25rem 0 .75rem; }
.status { font-size: .82rem; font-weight: 600; padding: .1rem .6rem; border-radius: 1rem;
  border: 1px solid currentColor; }
.status.complete { color: var(--good); }
.status.failed { color: var(--bad); }
.status.interrupted { color: var(--warn); }
.sub { flex-basis: 100%; color: var(--muted); margin: 0; overflow-wrap: anywhere; }
.reason { flex-basis: 100%; margin: .25rem 0 0; overflow-wrap: anywhere; }
.tiles { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(8.6rem, 1fr));
  margin-bottom: .75rem; }
.cards { columns: 2; column-gap: .75rem; }
.tile, .card { background: var(--surface); border: 1px solid var(--line); border-radius: .6rem;
  padding: .85rem 1rem; min-width: 0; }
.card { padding: 1rem 1.1rem; margin-bottom: .75rem; }
.cards .card { display: inline-block; width: 100%; vertical-align: top; }
.tile b { display: block; font-size: 1.35rem; font-weight: 620; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tile span, .tile small { display: block; color: var(--muted); font-size: .82rem; overflow-wrap: anywhere; }
.tile.bad b { color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th { text-align: left; font-weight: 500; color: var(--muted); white-space: nowrap; }
th, td { padding: .34rem .8rem .34rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child > * { border-bottom: 0; } td { overflow-wrap: anywhere; }
.fixed td { white-space: nowrap; }
.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td:last-child, th:last-child { padding-right: 0; }
.facts th { width: 8.5rem; }
code, pre { font: .85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { margin: .8rem 0 0; overflow-x: auto; padding: .8rem; background: var(--page); border-radius: .4rem; }
.command { display: block; overflow-wrap: anywhere; white-space: pre-wrap; padding: .55rem .8rem;
  background: var(--page); border-radius: .4rem; }
summary { cursor: pointer; font-weight: 600; font-size: .95rem; }
footer { color: var(--muted); font-size: .82rem; margin-top: 1.25rem; overflow-wrap: anywhere; }
@media (max-width: 46rem) {
  main { padding: 1.25rem .75rem 2rem; }
  .cards { columns: 1; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .6rem; }
  .tile b { font-size: 1.25rem; }
  .facts th { width: 6.5rem; }
  .chart text { font-size: 13.5px; }
}
@media print { body { background: none; } .card, .tile { break-inside: avoid; } }
"""
