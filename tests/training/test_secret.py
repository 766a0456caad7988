from __future__ import annotations

import json
import pickle
import stat
import threading

import pytest

from hfray.errors import EngineError
from hfray.training.secret import KEY_FILE_VARIABLE, SecretKey, key_file, secret_key


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def test_the_key_is_made_once_for_its_user_alone(state):
    key = secret_key()
    path = state / "hfray" / "checkpoint.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(key.value) == 64
    assert secret_key() == key
    assert [each.name for each in path.parent.iterdir()] == ["checkpoint.key"]


def test_users_have_keys_of_their_own(state, monkeypatch):
    first = secret_key()
    monkeypatch.setenv("XDG_STATE_HOME", str(state / "other"))
    assert secret_key() != first


def test_the_variable_names_a_file_for_all_nodes(state, monkeypatch):
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(state / "shared" / "key"))
    assert key_file() == state / "shared" / "key"
    assert secret_key() == secret_key()
    assert (state / "shared" / "key").is_file()


def test_a_key_that_is_mounted_as_a_link_will_do(state, monkeypatch):
    (state / "..data").mkdir()
    (state / "..data" / "key").write_bytes(b"k" * 40 + b"\n")
    (state / "..data" / "key").chmod(0o440)
    (state / "key").symlink_to("..data/key")
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(state / "key"))
    assert secret_key() == SecretKey(b"k" * 40)


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o602, 0o666])
def test_a_key_that_others_may_read_or_change_is_refused(state, mode):
    secret_key()
    path = state / "hfray" / "checkpoint.key"
    path.chmod(mode)
    with pytest.raises(EngineError, match="chmod 600"):
        secret_key()


def test_what_is_no_key_is_refused(state):
    secret_key()
    path = state / "hfray" / "checkpoint.key"
    path.write_bytes(b"short")
    with pytest.raises(EngineError, match="has 5 bytes"):
        secret_key()
    path.unlink()
    path.mkdir()
    with pytest.raises(EngineError, match=KEY_FILE_VARIABLE):
        secret_key()


def test_many_first_calls_at_once_agree(state):
    found = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        found.append(secret_key().value)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_it_does_not_show_itself():
    key = SecretKey(b"a secret of thirty-two characters")
    for text in (str(key), repr(key), f"{key}", f"{[key]}", repr({"key": key})):
        assert "secret of" not in text
    with pytest.raises(TypeError):
        json.dumps({"key": key})


def test_ray_shows_nothing_of_it_in_its_dashboard():
    from ray.train.v2._internal.state.schema import _to_json_serializable_value

    shown = _to_json_serializable_value({"key": SecretKey(b"a secret of thirty-two characters")})
    assert "secret of" not in json.dumps(shown)


def test_it_travels_to_workers():
    key = SecretKey(b"k" * 32)
    there = pickle.loads(pickle.dumps(key))  # as Ray carries it  # noqa: S301
    assert there.sign(b"content") == key.sign(b"content")
    assert there.sign(b"content") != SecretKey(b"j" * 32).sign(b"content")
