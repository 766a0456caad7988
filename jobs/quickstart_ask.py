"""Answers questions by nearest neighbour over the embeddings that `hfray run jobs/quickstart.yaml` wrote.

    python jobs/quickstart_ask.py out/quickstart ["your question" ...]

The questions go through the same task, model and predictor as the corpus did.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from hfray.engines.batch import BatchEngine
from hfray.errors import RowError
from hfray.inference.predictor import Predictor
from hfray.models.load import load_model
from hfray.spec.load import load_job
from hfray.tasks import TASKS
from hfray.types import Array

QUESTIONS = (
    "how do I parse command line arguments",
    "run a function again and again at fixed times",
    "compress data so that it takes less space on disk",
)
NUM_ANSWERS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="Answers questions over the embeddings of the quickstart job.")
    parser.add_argument("output", type=Path, help="the job's output folder")
    parser.add_argument("questions", nargs="*", default=QUESTIONS, help="default: three examples")
    arguments = parser.parse_args()
    if not (arguments.output / "_SUCCESS").is_file():
        parser.error(f"{arguments.output} holds no finished job; run `hfray run jobs/quickstart.yaml` first")
    disable_progress_bar()
    answer(arguments.output, arguments.questions, Console(highlight=False))


def answer(output: Path, questions: Sequence[str], console: Console) -> None:
    """Prints the texts nearest to each question."""
    corpus = pq.read_table(output / "data", filters=pc.field("error").is_null())
    scores = embed(output / "spec.yaml", questions) @ vectors_of(corpus).T
    for question, row_scores in zip(questions, scores, strict=True):
        table = Table(title=f"\n[bold]{escape(question)}[/bold]", title_justify="left", box=None, show_header=False)
        for style, min_width in (("dim", 4), ("cyan", 0), ("", 0)):
            table.add_column(style=style, min_width=min_width, no_wrap=True)
        for row in np.argsort(-row_scores)[:NUM_ANSWERS].tolist():
            name, text = corpus["name"][row].as_py(), corpus["text"][row].as_py()
            first_line = text.removeprefix(f"{name}: ").splitlines()[0]
            table.add_row(f"{row_scores[row]:.2f}", escape(name), escape(first_line))
        console.print(table)


def embed(spec: Path, texts: Sequence[str]) -> Array:
    """[num_texts, dim] by the model and task of a job's spec. Raises RowError for a text that cannot be embedded."""
    job = load_job(spec)
    task_class = TASKS[job.task.name]
    loaded = load_model(job.model, task_class)
    with closing(BatchEngine(loaded)) as engine:
        predictor = Predictor(task_class(job.task, loaded.processor, loaded.info), engine)
        results = predictor.predict([{"text": text} for text in texts])
    for result in results:
        if isinstance(result, RowError):
            raise result
    return np.array(results, dtype=np.float32)


def vectors_of(corpus: pa.Table) -> Array:
    """[num_rows, dim], the column `result` as one matrix."""
    vectors: Array = np.stack(corpus["result"].to_numpy())
    return vectors


if __name__ == "__main__":
    main()
