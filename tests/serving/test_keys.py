"""Keys files that are right and wrong, and a ring while its file changes."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from hfray.errors import SpecError
from hfray.serving.keys import KeyRing, new_key
from hfray.serving.keys_file import Key, read_keys, write_keys
from tests.serving.front import make_keys, until
from tests.serving.limits import SHA, Clock


def write(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "keys.yaml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_new_key() -> None:
    texts = {new_key()[0] for _ in range(100)}
    assert len(texts) == 100
    text, sha256 = new_key()
    assert text.startswith("hfray-")
    assert len(text) == len("hfray-") + 43  # 32 bytes in base64
    assert sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_find_tells_keys_apart(tmp_path: Path) -> None:
    path, texts = make_keys(tmp_path, alice={}, bob={"models": ("b",)}, carol={"disabled": True})
    ring = KeyRing.load(path)
    for name in ("alice", "bob"):
        for header in (f"Bearer {texts[name]}", f"bearer {texts[name]}".encode(), f"BEARER  {texts[name]} "):
            found = ring.find(header)
            assert found is not None
            assert found.id == name
    bad = ["", "Bearer", "Bearer ", texts["alice"], f"Basic {texts['alice']}", f"Bearer {texts['alice']}x"]
    bad += [f"Bearer {texts['alice'][:-1]}", f"Bearer {texts['carol']}", f"Bearer {SHA}", "Bearer \ud800é", "x" * 9999]
    assert [ring.find(header) for header in (None, *bad)] == [None] * (len(bad) + 1)


def test_every_digest_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, texts = make_keys(tmp_path, **{f"k{number}": {} for number in range(10)})
    ring, compared = KeyRing.load(path), []
    monkeypatch.setattr("hmac.compare_digest", lambda one, other: compared.append(one) or one == other)
    for text in (texts["k0"], texts["k9"], "none"):
        compared.clear()
        ring.find(f"Bearer {text}")
        assert len(compared) == 10


def test_models_of_a_key() -> None:
    assert Key(id="a", sha256=SHA).allows("any")
    assert Key(id="a", sha256=SHA, models=("b", "*")).allows("any")
    key = Key(id="a", sha256=SHA, models=("b",))
    assert (key.allows("b"), key.allows("c"), key.allows("*")) == (True, False, False)


def test_nothing_shows_a_key_or_its_hash(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    path, texts = make_keys(tmp_path, alice={})
    ring = KeyRing.load(path)
    key = ring.find(f"Bearer {texts['alice']}")
    assert key is not None
    shown = f"{key!r} {key} {ring!r} {ring} {caplog.text}"
    assert texts["alice"] not in shown
    assert key.sha256 not in shown
    assert texts["alice"] not in path.read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1: must be a list"),
        ("keys: []", ":1: must be a list"),
        ("- id: a\n  sha256: [", "not YAML"),
        (f"- id: a\n  sha256: {SHA}\n- id: a\n  sha256: {SHA[1:]}b\n", ":3: 1.id: given twice, first on line 1"),
        (f"- id: a\n  sha256: {SHA}\n- id: b\n  sha256: {SHA}\n", ":4: 1.sha256: given twice, first on line 2"),
        ("- id: a\n", ":1: 0.sha256: missing"),
        ("- id: a\n  sha256: AB\n", ":2: 0.sha256: must be the SHA-256"),
        (f"- id: a b\n  sha256: {SHA}\n", ":1: 0.id: must be a name"),
        (f"- id: a\n  sha256: {SHA}\n  model: [b]\n", ":3: 0.model: unknown key, did you mean models?"),
        (f"- id: a\n  sha256: {SHA}\n  zzz: 1\n", "known: id, sha256, models"),
        (f"- id: a\n  sha256: {SHA}\n  requests_per_minute: 0\n", ":3: 0.requests_per_minute: must be at least 1"),
        (f"- id: a\n  sha256: {SHA}\n  tokens_per_day: 1.5\n", ":3: 0.tokens_per_day: must be a whole number"),
        (f"- id: a\n  sha256: {SHA}\n  disabled: perhaps\n", ":3: 0.disabled: must be true or false"),
    ],
)
def test_mistakes_have_a_place(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        KeyRing.load(path)
    assert str(caught.value).startswith(f"{path}:")
    assert said in str(caught.value)


def test_a_key_in_the_wrong_place_is_not_shown(tmp_path: Path) -> None:
    text, _ = new_key()
    path = write(tmp_path, f"- {text}\n- id: {text}\n  sha256: {text}\n  {text}: 1\n- {{models: {text}}}\n")
    with pytest.raises(SpecError) as caught:
        KeyRing.load(path)
    assert len(str(caught.value).splitlines()) == 7
    assert text[6:20] not in str(caught.value)
    with pytest.raises(SpecError) as caught:
        KeyRing.load(write(tmp_path, f"- *{text}\n"))
    assert text[6:20] not in str(caught.value)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o602, 0o644, 0o660, 0o601])
def test_a_file_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path, "[]", mode)
    with pytest.raises(SpecError, match=f"chmod 600 {path}"):
        KeyRing.load(path)
    path.chmod(0o400)
    assert KeyRing.load(path).find("Bearer x") is None


@pytest.mark.parametrize(("mode", "opens"), [(0o440, True), (0o640, True), (0o460, False), (0o444, False)])
def test_a_file_that_root_has_mounted_for_the_group_is_read(
    tmp_path: Path, mode: int, opens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Kubernetes mounts a Secret in a pod whose user is not root."""
    path = write(tmp_path, "[]", mode)
    facts = os.stat_result((path.stat().st_mode, 0, 0, 1, 0, 1000, 2, 0, 0, 0))
    monkeypatch.setattr(os, "fstat", lambda _: facts)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if opens:
        assert read_keys(path)[0] == ()
        return
    with pytest.raises(SpecError, match=f"chmod 600 {path}"):
        read_keys(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="hfray keys add"):
        KeyRing.load(tmp_path / "none.yaml")
    with pytest.raises(SpecError):
        KeyRing.load(tmp_path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    odd: list[dict[str, Any]] = [{"id": "no", "sha256": "1" * 64}, {"id": "1e5", "sha256": "1e" + "1" * 62}]
    keys = tuple(Key(**each, models=("*", "true", "a: b"), tokens_per_day=5) for each in odd)
    path = tmp_path / "keys.yaml"
    for wanted in (keys, (), keys[:1]):
        write_keys(path, wanted)
        assert read_keys(path)[0] == wanted
        assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["keys.yaml"]


def test_a_change_counts_within_a_second(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock(0.0)
    path, texts = make_keys(tmp_path, alice={}, bob={})
    ring = KeyRing.load(path, clock=clock)
    alice, bob = (f"Bearer {texts[name]}" for name in ("alice", "bob"))
    keys = read_keys(path)[0]
    write_keys(path, [keys[0].model_copy(update={"disabled": True}), keys[1]])
    clock.now = 0.9
    assert ring.find(alice) is not None  # not looked at more than once a second
    clock.now = 1.1
    until(lambda: ring.find(alice) is None, "the revocation")
    assert ring.find(bob) is not None

    path.write_text("- id: [")  # broken: the old ring stays, and it is said once
    for second in range(2, 12):
        clock.now = second
        assert ring.find(alice) is None
        assert ring.find(bob) is not None
        until(lambda: not ring._reading.locked(), "the file is read")
    assert caplog.text.count("stay in force") == 1
    path.unlink()
    for second in range(12, 22):
        clock.now = second
        assert ring.find(bob) is not None
        until(lambda: not ring._reading.locked(), "the file is read")
    assert caplog.text.count("no such file") == 1

    write_keys(path, keys)
    clock.now = 40
    until(lambda: ring.find(alice) is not None, "the key is back")
