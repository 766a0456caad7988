"""The form that asks for a key. Knows HTML; not keys."""

from __future__ import annotations

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Playground</title><style>
:root { color-scheme: light dark; --ink: #1c1c1e; --dim: #6b6b70; --page: #fff; --line: #d8d8dc; --accent: #2457d6;
  --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececee; --dim: #9a9aa0; --page: #161618; --line: #3a3a3e;
  --accent: #7ea2ff; --bad: #ff8a80; } }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
form { width: min(22rem, calc(100vw - 3rem)); display: grid; gap: .75rem; }
h1 { font-size: 1.25rem; font-weight: 600; margin: 0; } p { margin: 0; color: var(--dim); }
.bad { color: var(--bad); } label { font-size: .875rem; color: var(--dim); }
input, button { font: inherit; padding: .6rem .75rem; border-radius: .5rem; border: 1px solid var(--line);
  box-sizing: border-box; width: 100%; background: transparent; color: inherit; }
button { background: var(--accent); border-color: var(--accent); color: var(--page); font-weight: 600;
  cursor: pointer; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
</style></head><body><form method="post" action="/playground/login"><h1>Playground</h1>
<p>What you try here counts as requests of your key.</p>PROBLEM
<label for="key">API key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button></form></body></html>
"""
_PROBLEM = '<p class="bad" role="alert">That is no valid key.</p>'


def login_page(*, refused: bool = False) -> str:
    """refused: whether the last key was none."""
    return _PAGE.replace("PROBLEM", _PROBLEM if refused else "")
