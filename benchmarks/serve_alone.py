"""One question after another through the engine that an endpoint has, in a process of its own: prints the median in
milliseconds. A side of benchmarks/serve.py.

python -m benchmarks.serve_alone MODEL
"""

from __future__ import annotations

import csv
import statistics
import sys
import time
from contextlib import closing

import torch

from benchmarks.texts import DATA
from hfray.engines.batch import BatchEngine
from hfray.engines.threads import in_brief_thread
from hfray.inference.predictor import Predictor
from hfray.models.load import load_model
from hfray.spec.sections import ModelSpec
from hfray.tasks import TASKS

NUM_WARM, NUM_ASKED = 50, 500


def main(path: str) -> None:
    torch.set_num_threads(2)
    task = TASKS["text-classification"]
    model = in_brief_thread(load_model, ModelSpec(path=path, dtype="float32"), task)
    with (DATA / "banking77" / "test.csv").open() as file:
        texts = [row["text"] for row, _ in zip(csv.DictReader(file), range(NUM_WARM + NUM_ASKED), strict=False)]
    took: list[float] = []
    with closing(BatchEngine(model)) as engine:
        predictor = Predictor(task(task.Options(name=task.name), model.processor, model.info), engine)
        for text in texts:
            started = time.perf_counter()
            predictor.predict([{"text": text}], [0])
            took.append(time.perf_counter() - started)
    print(1e3 * statistics.median(took[NUM_WARM:]))


if __name__ == "__main__":
    main(sys.argv[1])
