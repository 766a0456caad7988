"""A job file that is right, for tests to break."""

from __future__ import annotations

GOOD = """\
kind: score
name: intents
model: {path: some/model}
task:
  name: text-classification
  top_k: 3
input:
  path: data.csv
output: {path: out/intents}
engine: {name: batch, max_batch_tokens: 4096}
workers: {min: 1, max: 2}
"""
