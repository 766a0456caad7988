from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from hfray.kinds.training_curve import curve_svg, smoothed
from hfray.training.facts import Evaluation
from tests.kinds.training import make_run
from tests.training.test_facts import make_facts, make_point

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> set[str | None]:
    return {element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")}


def test_the_picture_shows_loss_and_the_metric_that_decides() -> None:
    svg = curve_svg(make_run())
    assert {"loss", "training", "validation", "accuracy", "best at step 100", "step"} <= texts(svg)
    assert len(list(ElementTree.fromstring(svg).iter(f"{SVG}svg"))) == 3  # the file and two charts


def test_the_file_stands_alone() -> None:
    svg = curve_svg(make_run())
    root = ElementTree.fromstring(svg)
    assert (root.tag, root.attrib["width"], root.attrib["height"]) == (f"{SVG}svg", "968", "242")
    ground = next(root.iter(f"{SVG}rect"))
    assert ground.attrib["fill"] == "#ffffff"
    for outside in ("var(", "url(", "href", "@import", "@media", "<script", "prefers-color-scheme"):
        assert outside not in svg
    assert re.search(r"\.chart \.line {[^}]*stroke: #", svg)


def test_only_loss_where_loss_decides() -> None:
    svg = curve_svg(make_run(metric_for_best="loss", best_step=200))
    assert "accuracy" not in texts(svg)
    assert ElementTree.fromstring(svg).attrib["width"] == "492"


def test_many_steps_are_smoothed() -> None:
    assert "training, smoothed" in texts(curve_svg(make_run(num_points=200)))
    points = [make_point(step, 1 + step % 2) for step in range(1, 201)]
    inner = [value for step, value in smoothed(points) if value is not None and 10 <= step <= 190]
    assert all(1.4 < value < 1.6 for value in inner)


def test_a_stretch_without_a_finite_loss_is_a_gap() -> None:
    points = [make_point(step, None if 50 <= step <= 150 else 2.0) for step in range(1, 201)]
    assert {step for step, value in smoothed(points) if value is None} == set(range(54, 147))


def test_a_run_without_anything_to_show() -> None:
    for facts in (make_facts(), make_facts([make_point(1, None)])):
        assert texts(curve_svg(facts)) >= {"loss", "step"}


def test_names_are_escaped() -> None:
    evaluation = Evaluation(step=1, epoch=1, seconds=1.0, metrics={"<b>&": 0.5})
    facts = make_facts([make_point(1)], evaluations=(evaluation,), metric_for_best="<b>&", best_step=1)
    assert "<b>&" in texts(curve_svg(facts))
