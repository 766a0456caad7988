"""Answers questions by nearest neighbour over the embeddings that `hfray run jobs/quickstart.yaml` wrote.

    python jobs/quickstart_ask.py out/quickstart ["your question" ...]

The questions go through the same task, model and predictor as the corpus did.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from hfray.engines.batch import BatchEngine
from hfray.inference.predictor import Predictor
from hfray.models.load import load_model
from hfray.spec.load import load_job
from hfray.tasks import TASKS

QUESTIONS = (
    "how do I parse command line arguments",
    "run a function again and again at fixed times",
    "compress data so that it takes less space on disk",
)
NUM_ANSWERS = 3


def main(output: Path, questions: tuple[str, ...]) -> None:
    table = pq.read_table(output / "data", filters=pc.field("error").is_null())
    vectors = np.stack(table["result"].to_numpy())
    job = load_job(output / "spec.yaml")
    task_class = TASKS[job.task.name]
    loaded = load_model(job.model, task_class)
    engine = BatchEngine(loaded)
    predictor = Predictor(task_class(job.task, loaded.processor, loaded.info), engine)
    asked = np.stack(predictor.predict([{"text": question} for question in questions]))
    engine.close()
    console = Console()
    for question, scores in zip(questions, asked @ vectors.T, strict=True):
        answers = Table(title=f"\n[bold]{question}[/bold]", title_justify="left", box=None, show_header=False)
        for row in np.argsort(-scores)[:NUM_ANSWERS]:
            text = str(table["text"][int(row)]).strip().splitlines()[0]
            answers.add_row(f"{scores[row]:.2f}", f"[cyan]{table['name'][int(row)]}[/cyan]", text[:90])
        console.print(answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(sys.argv[2:]) or QUESTIONS)
