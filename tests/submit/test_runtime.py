"""What travels with a job, and what must not."""

from __future__ import annotations

from pathlib import Path

import pytest

import hfray
from hfray.errors import SpecError
from hfray.spec.load import load_job
from hfray.submit.resolve import as_given, resolved
from hfray.submit.runtime import command, runtime_env, write_job


def test_the_very_package_goes_along() -> None:
    env = runtime_env(Path("/folder"), pip=["some==1"])
    assert env["py_modules"] == [str(Path(hfray.__file__).parent)]
    assert (env["working_dir"], env["pip"]) == ("/folder", ["some==1"])
    assert "pip" not in runtime_env(Path("/folder"))


@pytest.mark.parametrize("name", ["train-banking-lora", "tokenize-chat", "text-classification", "export-nf4"])
def test_the_job_on_the_cluster_says_what_the_author_said(name: str, tmp_path: Path) -> None:
    """A default that is written out counts as said, and some follow from what is not said."""
    job = resolved(load_job(Path(__file__).parents[2] / f"jobs/{name}.yaml")).job
    write_job(tmp_path, job)
    there = load_job(tmp_path / "job.yaml")
    assert there == job
    assert as_given(there) == as_given(job)
    assert "max_error_rate" not in (tmp_path / "job.yaml").read_text()


def test_a_job_has_time_to_stop() -> None:
    assert int(runtime_env(Path())["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30


def test_variables_go_by_name_with_the_value_of_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert runtime_env(Path(), variables=["HF_ENDPOINT"])["env_vars"]["HF_ENDPOINT"] == "https://mirror.example"


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "OPENAI_API_KEY", "api_keys", "PGPASSWORD", "APIKEY"],
)
def test_a_secret_is_refused_by_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "swordfish")
    with pytest.raises(SpecError, match="a secret by its name") as caught:
        runtime_env(Path(), variables=[name])
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize("name", ["KEYBOARD", "MONKEY", "HF_HUB_OFFLINE", "OMP_NUM_THREADS"])
def test_what_only_sounds_like_one_is_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert runtime_env(Path(), variables=[name])["env_vars"][name] == "1"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("A=b", "give the name of a variable alone"),
        ("RAY_ADDRESS", "a setting of the cluster's own"),
        ("NOT_SET_HERE_AT_ALL", "not set here"),
    ],
)
def test_what_cannot_be_sent_is_said(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        runtime_env(Path(), variables=[name])


def test_the_command_takes_the_place_of_its_shell() -> None:
    assert command(["--restart"]) == "exec python -m hfray.cli run job.yaml --restart"
