"""R16 and `hfray submit` against a cluster with a token, as `ray start --head` brings it up: once however often, and
found again after anything that happens to the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pyarrow.parquet as pq
import pytest

import hfray
from hfray.spec.load import load_job
from hfray.submit.resolve import resolved
from tests.promises import oracle
from tests.promises.cut_link import cut_link
from tests.promises.head import SECRET, Head, head, wait_for
from tests.promises.rig import REPOSITORY, Rig
from tests.promises.terminal import CTRL_C

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, faults: Path) -> Iterator[Head]:
    with head(tmp_path_factory.mktemp("head"), faults) as each:
        yield each


@pytest.fixture
def rig(tmp_path: Path, faults: Path, model: Path) -> Rig:
    nothing = cast(Any, None)  # jobs run on the head alone
    return Rig(tmp_path, nothing, nothing, faults, model)


def jobs(cluster: Head) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in json.loads(cluster.hfray("jobs", "--json"))}


def api(cluster: Head, path: str, **body: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {SECRET}"}
    if body:
        return httpx.post(f"{cluster.address}{path}", json=body, headers=headers, timeout=60)
    return httpx.get(f"{cluster.address}{path}", headers=headers, timeout=60)


def test_found_again_stopped_and_gone_on_with(cluster: Head, rig: Rig) -> None:
    source = rig.input(6_000)
    job = rig.job(source, seconds_per_item=0.04, name="long")  # two minutes: longer than the commands take
    first = f"{resolved(load_job(job)).id}-1"

    killed = cluster.start("submit", str(job), "--follow")
    wait_for(lambda: rig.num_parts() > 0, killed)
    killed.kill()
    killed.communicate()
    assert f"{first}  long  runs" in cluster.hfray("status", "long")

    told = cluster.hfray("submit", str(job), "--set", "max_error_rate=0.5")
    assert f"runs already  {first}" in told
    assert "with other settings than these" in told

    reader = cluster.start("logs", first[:6], "--follow")
    said = cast(Any, reader.stdout).readline()
    while "scoring" not in said:
        assert said, reader.communicate()
        said = cast(Any, reader.stdout).readline()
    reader.send_signal(signal.SIGINT)
    out, _ = reader.communicate(timeout=60)
    assert reader.returncode == 130
    assert f"{first} runs on" in out
    assert jobs(cluster)[first]["status"] == "RUNNING"

    assert "stopped" in cluster.hfray("stop", first)
    assert "stopped" in cluster.hfray("status", first, code=130)
    parts = rig.num_parts()
    assert 0 < parts < 24
    assert "interrupted; what is finished is kept" in cluster.hfray("logs", first)

    second = f"{first[:-1]}2"
    told = cluster.hfray("submit", str(job), "--follow", "--set", "engine.seconds_per_item=0")
    assert f"submitted  {second}" in told
    assert "complete" in told
    oracle.check(rig.output, pq.read_table(source))

    before = rig.files()
    told = cluster.hfray("submit", str(job), "--follow")
    assert f"done already  {second}" in told
    assert rig.files() == before
    listed = jobs(cluster)
    assert [listed[each]["status"] for each in (first, second)] == ["STOPPED", "SUCCEEDED"]
    assert (listed[second]["name"], listed[second]["output"]) == ("long", str(rig.output))
    shown = api(cluster, "/api/jobs/").text + api(cluster, f"/api/jobs/{second}/logs").text
    assert SECRET not in shown


def test_ctrl_c_at_a_terminal_asks_what_next(cluster: Head, rig: Rig) -> None:
    job = rig.job(rig.input(12_000), seconds_per_item=0.04, name="asked")
    with cluster.at_terminal("submit", str(job), "--follow") as screen:
        screen.wait_for("rows/s")
        screen.press(CTRL_C)
        screen.wait_for("ollow on? ")
        screen.press("f\n")
        screen.wait_for("rows/s")
        screen.press(CTRL_C)
        screen.wait_for("ollow on? ")
        screen.press("d\n")
        screen.wait_for("--follow comes back to it")
        assert screen.process.wait(60) == 130
    assert jobs(cluster)[f"{resolved(load_job(job)).id}-1"]["status"] == "RUNNING"
    with cluster.at_terminal("logs", "asked", "--follow") as screen:
        screen.wait_for("rows/s")
        screen.press(CTRL_C)
        screen.wait_for("ollow on? ")
        screen.press("s\n")
        screen.wait_for("stopped")
        assert screen.process.wait(60) == 130
    assert jobs(cluster)[f"{resolved(load_job(job)).id}-1"]["status"] == "STOPPED"


def test_ten_at_the_same_moment_submit_one_job(cluster: Head, rig: Rig) -> None:
    job = rig.job(rig.input(3_000), seconds_per_item=0.05, name="popular")
    command = [sys.executable, "-m", "tests.promises.submitters", str(job), cluster.address, "10"]
    env = {"RAY_AUTH_TOKEN_PATH": str(cluster.token), "HOME": str(cluster.home), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=os.environ | env, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    got = json.loads(done.stdout)
    only = f"{resolved(load_job(job)).id}-1"
    assert [name for name, _ in got] == [only] * 10
    assert sum(new for _, new in got) == 1
    assert [name for name, each in jobs(cluster).items() if each["name"] == "popular"] == [only]
    cluster.hfray("stop", "popular")


@pytest.mark.chaos
def test_a_link_that_is_cut_after_the_submission_makes_no_second_one(cluster: Head, rig: Rig) -> None:
    job = rig.job(rig.input(500), name="cut")
    only = f"{resolved(load_job(job)).id}-1"
    with cut_link(cluster.address) as link:
        told = cluster.hfray("submit", str(job), RAY_DASHBOARD_ADDRESS=link.address)
        assert only.encode() in link.cut
        assert len(link.cut) == 2, "the probe's answer was cut too"
    assert f"runs already  {only}" in told
    wait_for(lambda: jobs(cluster)[only]["status"] == "SUCCEEDED")
    assert [name for name in jobs(cluster) if name.startswith(only[:12])] == [only]


def test_a_path_that_the_cluster_does_not_see_is_refused_before(cluster: Head, rig: Rig) -> None:
    job = rig.job(rig.folder / "nowhere.parquet", name="blind")
    told = cluster.hfray("submit", str(job), code=4)
    assert f"does not see the input {rig.folder}/nowhere.parquet" in told
    assert "blind" not in {each["name"] for each in jobs(cluster).values()}


def test_an_older_client_does_not_go_on_with_the_work_of_a_newer_one(cluster: Head, rig: Rig) -> None:
    job = rig.job(rig.input(10), name="newer")
    first = f"{resolved(load_job(job)).id}-1"
    about = {"hfray": "99.0.0", "name": "newer"}
    assert api(cluster, "/api/jobs/", entrypoint="false", submission_id=first, metadata=about).is_success
    wait_for(lambda: jobs(cluster)[first]["status"] == "FAILED")
    assert "failed" in cluster.hfray("status", "newer", code=1)
    told = cluster.hfray("submit", str(job), code=2)
    assert f"hfray 99.0.0, which is newer than this one ({hfray.__version__})" in told


def test_a_strange_token_and_none(cluster: Head, rig: Rig) -> None:
    job = rig.job(rig.input(10), name="stranger")
    strange = rig.folder / "strange"
    strange.write_text("b" * 64)
    for wrong in (strange, rig.folder / "none"):
        told = cluster.hfray("submit", str(job), code=2, RAY_AUTH_TOKEN_PATH=str(wrong))
        assert "asks for a token, and this one is not it" in told
    assert "stranger" not in {each["name"] for each in jobs(cluster).values()}


@pytest.mark.chaos
def test_a_package_that_cannot_be_had_is_named(cluster: Head, rig: Rig) -> None:
    job = rig.job(
        rig.input(10), name="packed", input={"path": "s3://nowhere/x.parquet"}, output={"path": "s3://no/out"}
    )
    told = cluster.hfray("submit", str(job), "--follow", "--pip", "hfray-no-such-package==1", code=4)
    assert "not submitted: the packages cannot be installed there: " in told
    assert "hfray-no-such-package" in told
    assert "Traceback" not in told


@pytest.mark.chaos
def test_a_cluster_that_asks_nobody_is_refused(tmp_path: Path, faults: Path) -> None:
    with head(tmp_path, faults, with_token=False) as each:
        assert "asks nobody for a token" in each.hfray("jobs", code=2)
        assert "none so far" in each.hfray("jobs", "--allow-open")
