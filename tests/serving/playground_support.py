"""A tiny CLIP that needs no data, and a browser that nobody looks at."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import transformers

from tests.models.support import letter_tokenizer
from tests.tasks.support import tiny_model

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WAIT_S = 20
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--window-size=900,1000",
    "--force-device-scale-factor=1.5",
)  # fmt: skip


def save_clip(folder: Path) -> Path:
    """A random CLIP of 2 layers with its processors, in a folder."""
    tokenizer = letter_tokenizer(32)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    text = {
        **size, "vocab_size": len(tokenizer), "max_position_embeddings": 32, "bos_token_id": 2, "eos_token_id": 3,
        "pad_token_id": 0,
    }  # fmt: skip
    vision = {**size, "image_size": 32, "patch_size": 16}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
    tiny_model("AutoModel", config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    images = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "crop_size": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    return folder


@contextmanager
def browser(**more: Any) -> Iterator[Any]:
    """Selenium's driver of a headless Chromium that finds no host but this one. Skips where there is none."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium with its chromedriver on this machine")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="hfray-chromium-") as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            yield driver
        finally:
            driver.quit()


def hosts_asked(driver: Any) -> set[str]:
    """Hosts of all requests that its pages have made since this was asked last."""
    found = set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = urlsplit(message["params"]["request"]["url"])
            if url.scheme not in ("data", "blob", "chrome", "chrome-untrusted"):  # what it has within itself
                found.add(str(url.hostname))
    return found
