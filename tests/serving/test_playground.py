"""The playground in a real browser: three kinds of models, and nothing asked of any other host."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.models.support import save_decoder, save_model
from tests.serving.office import front_of, replica_of, served
from tests.serving.playground_support import WAIT_S, browser, hosts_asked, save_clip

pytest.importorskip("gradio", reason="the playground needs the extra `ui`")
pytest.importorskip("selenium", reason="selenium drives the browser")
pytestmark = pytest.mark.slow


class Reader:
    """Somebody at the page."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        self.url = url
        driver.get(f"{url}/playground/")
        self.until(lambda: self.one("#run").is_displayed())

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.one(selector).text)

    def until(self, condition: Callable[[], Any]) -> Any:
        """What the condition gives once it is true: parts of the page are replaced while it is looked at."""
        from selenium.common.exceptions import WebDriverException

        end, problem = time.monotonic() + WAIT_S, "false"
        while time.monotonic() < end:
            try:
                if found := condition():
                    return found
            except WebDriverException as error:
                problem = str(error.msg)
            time.sleep(0.02)
        raise TimeoutError(f"{problem}; the page says {self.text('body')[:500]!r}")

    def choose(self, model: str, does: str) -> None:
        from selenium.webdriver.common.keys import Keys

        box = self.one("#model input")
        box.click()
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(model, Keys.ENTER)
        self.until(lambda: does in self.text("#about"))

    def fill(self, field: str, text: str) -> None:
        box = self.until(lambda: self.one(f"#{field} textarea, #{field} input"))
        box.clear()
        box.send_keys(text)

    def run(self) -> None:
        self.until(lambda: self.one("#run").is_enabled())
        self.one("#run").click()

    def stop_is_shown(self) -> bool:
        return any(each.is_displayed() for each in self.driver.find_elements("css selector", "#stop"))

    def stop(self) -> bool:
        """Whether the button was there to be pressed, looked for and pressed in one step: it goes with the answer."""
        return bool(
            self.driver.execute_script(
                """const button = document.querySelector("#stop");
                if (!button?.checkVisibility()) return false;
                button.click();
                return true;"""
            )
        )

    def curl(self) -> str:
        return str(self.one("#command pre").get_attribute("textContent"))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("models")
    models = {
        "sentiment": replica_of(save_model(folder / "sentiment"), "text-classification"),
        "talker": replica_of(
            save_decoder(folder / "talker", max_length=2048),
            {"name": "text-generation", "max_new_tokens": 400, "min_new_tokens": 400},
        ),
        "tagger": replica_of(
            save_model(folder / "tagger", "AutoModelForTokenClassification", labels=("B-PER", "B-LOC")),
            "token-classification",
        ),
        "clip": replica_of(save_clip(folder / "clip"), "zero-shot-image-classification"),
    }
    with served(front_of(models, playground=True)) as address:
        yield address
    for replica, _ in models.values():
        replica.close()


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture
def reader(driver: Any, url: str) -> Iterator[Reader]:
    driver.get_log("browser")
    reader = Reader(driver, url)
    yield reader
    assert hosts_asked(driver) == {"127.0.0.1"}
    assert [each["message"] for each in driver.get_log("browser") if each["level"] == "SEVERE"] == []


def test_classification_with_the_request_as_curl(reader: Reader) -> None:
    reader.choose("sentiment", "text-classification")
    reader.fill("text", "so warm ${1+1} {{value}} <img src=x> today's")
    reader.run()
    bars = reader.until(lambda: reader.driver.find_elements("css selector", ".hf-bars li"))
    found = [bar.text.split("\n") for bar in bars]
    assert sorted(label for label, _ in found) == ["cold", "hot", "warm"]
    scores = [float(score) for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=0.01)
    assert f"{reader.url}/models/sentiment" in reader.curl()
    assert "${1+1} {{value}} <img src=x>" in reader.curl()  # as it was typed: nothing of it is run


def test_entities_are_marked_in_their_text(reader: Reader) -> None:
    reader.choose("tagger", "token-classification")
    reader.fill("text", "so <b>warm</b> today")
    reader.run()
    marks = reader.until(lambda: reader.driver.find_elements("css selector", "#result mark"))
    assert {mark.find_element("css selector", "sub").text for mark in marks} <= {"PER", "LOC"}
    whole = reader.driver.execute_script(
        """const text = document.querySelector("#result").cloneNode(true);
        text.querySelectorAll("sub").forEach(each => each.remove());
        return text.textContent.trim();"""
    )
    assert "so <b>warm</b> today" in whole, "all of the text, with what looks like a page as it was typed"


def test_a_refusal_is_shown_in_the_words_of_the_api(reader: Reader) -> None:
    reader.choose("clip", "zero-shot-image-classification")
    reader.run()
    reader.until(lambda: reader.text("#result .hf-error") == "choose an image first")


def test_chat_comes_token_by_token_and_can_be_stopped(reader: Reader) -> None:
    reader.choose("talker", "text-generation")
    reader.fill("text", "Hello")
    reader.driver.execute_script(
        """window.seen = new Set();
        new MutationObserver(() => {
          const bot = [...document.querySelectorAll("#chat .bot.message")].pop();
          if (bot) window.seen.add(bot.textContent.length);
        }).observe(document.querySelector("#chat"), {subtree: true, childList: true, characterData: true});"""
    )
    reader.run()
    reader.until(lambda: reader.one("#chat .bot.message").text)
    reader.until(lambda: reader.one("#run").is_enabled() and not reader.stop_is_shown())
    assert reader.text("#chat .user.message") == "Hello"
    assert reader.driver.execute_script("return window.seen.size") > 5
    body = json.loads(reader.curl().partition("-d ")[2].strip("'"))
    assert body["messages"] == [{"role": "user", "content": "Hello"}]

    reader.fill("text", "again")
    reader.run()
    reader.until(lambda: len(reader.driver.find_elements("css selector", "#chat .bot.message")) == 2)
    reader.until(reader.stop)
    reader.until(lambda: reader.one("#run").is_enabled() and not reader.stop_is_shown())
    said, cut = (len(each.text) for each in reader.driver.find_elements("css selector", "#chat .bot.message"))
    assert cut < said  # each would be 400 tokens long
    assert '"role": "assistant"' in reader.curl()  # what was said before goes along


def test_an_image_that_is_chosen(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 30), "red").save(path)
    reader.choose("clip", "zero-shot-image-classification")
    reader.one("#image input[type=file]").send_keys(str(path))
    reader.until(lambda: reader.one("#image img").get_property("naturalWidth") == 40)
    reader.fill("labels", "red, blue, a cat")
    reader.choose("sentiment", "text-classification")
    reader.choose("clip", "zero-shot-image-classification")  # what was given stays, to be tried on other models
    reader.run()
    bars = reader.until(lambda: reader.driver.find_elements("css selector", ".hf-bars li"))
    assert {bar.text.split("\n")[0] for bar in bars} == {"red", "blue", "a cat"}
    assert '"inputs": "$(base64 -w0 image.png)"' in reader.curl()
