"""The cards of a tokenised corpus, and its lines in the summary."""

from __future__ import annotations

from hfray.kinds.corpus import Corpus, SplitFacts, Vocabulary
from hfray.kinds.report import Report
from tests.kinds.test_report import summary
from tests.kinds.test_report_html import EVIL, parse

CORPUS = Corpus(
    mode="packed",
    max_length=128,
    source_rows=1000,
    left_out={"where": 90, "deduplicate": 8},
    documents=900,
    splits=(
        SplitFacts(name="train", parts=2, documents=800, examples=90, tokens=11_000),
        SplitFacts(name="validation", parts=1, documents=100, examples=10, tokens=1_500),
    ),
    capacity_tokens=12_800,
    samples=("[CLS] one", EVIL),
)
REPORT = Report(
    name="corpus", kind="tokenize", task="packed", rows=100, failed=2, error_types={"NullText": 2}, shards=3,
    tokens=12_500, padded_tokens=12_800, computed_tokens=12_500, truncated=9, lengths=(1, 2) + (0,) * 20,
    scoring_s=10.0, wall_s=12.0, workers=2, corpus=CORPUS, job="jobs/corpus.yaml", output="out/corpus",
)  # fmt: skip


def test_the_page_tells_where_the_rows_went_and_what_they_became() -> None:
    page = parse(REPORT)
    for part in (
        "From rows to examples", "left out by where", "-90", "-8", "failed", "-2", "900", "Splits", "88.0 %", "97.66 %",
        "optimizer steps", "documents per second", "90", "12", "[CLS] one", EVIL, "1.0 % of the rows cut",
    ):  # fmt: skip
        assert part in page.text, part
    assert "script" not in page.tags
    assert "--retry-errors" not in page.text
    assert "Padding waste" not in page.text


def test_steps_of_an_epoch_are_rounded_up() -> None:
    assert [CORPUS.steps(size) for size in (8, 64, 128)] == [12, 2, 1]


def test_a_report_comes_back_with_its_corpus() -> None:
    assert Report.from_json(REPORT.to_json()) == REPORT


def test_the_summary_counts_documents() -> None:
    text = summary(REPORT, width=120)
    for part in (
        "examples", "900", "of 1,000 rows, 90 left out by where, 8 left out by deduplicate", "97.66 %",
        "of 128 tokens each", "train, 11k tokens", "documents/s", "90", "10.0 s tokenising", "0.2 %",
    ):  # fmt: skip
        assert part in text, part
    assert "retry" not in text


def test_a_learned_tokenizer() -> None:
    vocabulary = Vocabulary(
        size=4000, fingerprint="f" * 64, learned_s=2.0, num_texts=500, num_skipped=3, num_chars=90_000, num_words=700
    )
    text = summary(REPORT.model_copy(update={"corpus": None, "vocabulary": vocabulary}))
    for part in ("4,000", "learned in 2.0 s", "90k characters, 3 skipped", "500"):
        assert part in text, part
