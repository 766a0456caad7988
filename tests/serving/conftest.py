"""A gateway that tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.site import Site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    from tests.serving.site import open_site

    with open_site(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own setting keeps all of huggingface_hub from the network, its client for inference included."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
