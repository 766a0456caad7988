"""The server of the Hugging Face tutorial: FastAPI around a pipeline. The other side of benchmarks/serve.py."""

import os

from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

app = FastAPI()
classifier = pipeline("text-classification", model=os.environ["MODEL"])


class Question(BaseModel):
    inputs: str


@app.post("/predict")
def predict(question: Question) -> list[dict[str, object]]:
    return list(classifier(question.inputs))
