"""The tasks by name. Each is one file; this dict is the only registry."""

from __future__ import annotations

from hfray.tasks.base import Task
from hfray.tasks.feature_extraction import FeatureExtraction
from hfray.tasks.fill_mask import FillMask
from hfray.tasks.image_classification import ImageClassification
from hfray.tasks.perplexity import Perplexity
from hfray.tasks.question_answering import QuestionAnswering
from hfray.tasks.sentence_similarity import SentenceSimilarity
from hfray.tasks.summarization import Summarization
from hfray.tasks.text2text_generation import Text2TextGeneration
from hfray.tasks.text_classification import TextClassification
from hfray.tasks.text_generation import TextGeneration
from hfray.tasks.text_ranking import TextRanking
from hfray.tasks.token_classification import TokenClassification
from hfray.tasks.translation import Translation
from hfray.tasks.zero_shot_classification import ZeroShotClassification
from hfray.tasks.zero_shot_image_classification import ZeroShotImageClassification

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        TextClassification,
        TokenClassification,
        QuestionAnswering,
        ZeroShotClassification,
        FillMask,
        FeatureExtraction,
        SentenceSimilarity,
        TextRanking,
        Summarization,
        Translation,
        Text2TextGeneration,
        TextGeneration,
        Perplexity,
        ImageClassification,
        ZeroShotImageClassification,
    )
}
