"""cluster.yaml and cluster-local.yaml: what a reader is told of them, and what Ray itself makes of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfray.kinds.ray_token import token_file

ROOT = Path(__file__).parent.parent
FILES = {name: yaml.safe_load((ROOT / name).read_text("utf-8")) for name in ("cluster.yaml", "cluster-local.yaml")}
AWS, LOCAL = FILES.values()
TYPES = AWS["available_node_types"]
WORKERS = {name: each for name, each in TYPES.items() if name != AWS["head_node_type"]}
BOTH = pytest.mark.parametrize("config", FILES.values(), ids=FILES)
NO_TOKEN = "no authentication token was found"

# In place of `ray`: its own command line, up to where it would start processes; it writes down what they would be told.
FAKE_RAY = f"""#!{sys.executable}
import json, os, sys
if sys.argv[1] != "start":
    sys.exit("only `ray start` is played")
import ray._private.node, ray._raylet
from ray._private import services
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray.scripts.scripts import main

class Node:
    def __init__(self, params, head, **_):
        spec = ResourceAndLabelSpec(params.num_cpus, params.num_gpus, labels=params.labels)
        spec.resolve(is_head=head, node_ip_address="127.0.0.1")
        seen = {{
            "head": head, "cpus": spec.num_cpus, "gpus": spec.num_gpus, "labels": spec.labels,
            "token": ray._raylet.get_authentication_mode() == ray._raylet.AuthenticationMode.TOKEN,
            "gcs": params.gcs_address, "port": params.gcs_server_port, "dashboard": params.dashboard_host,
            "client": params.ray_client_server_port, "autoscaling": params.autoscaling_config,
            "env": {{key: value for key, value in os.environ.items() if key.startswith("RAY_")}},
        }}
        with open(os.environ["SEEN"], "w") as file:
            json.dump(seen, file)
        os._exit(0)

ray._private.node.Node = Node
services.find_gcs_addresses = services.find_bootstrap_address = lambda *_: set()
main()
"""


def commands(config: dict[str, Any]) -> list[str]:
    return [each for key, value in config.items() if key.endswith("_commands") for each in value]


def mounted(config: dict[str, Any], home: Path) -> None:
    """The code as a node gets it, in a home folder of its own."""
    for remote, local in config["file_mounts"].items():
        if local.startswith("./"):
            target = home / remote.removeprefix("~/")
            target.parent.mkdir(parents=True, exist_ok=True)
            source = ROOT / local
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)


def started(tmp_path: Path, command: str) -> dict[str, Any]:
    """What the processes of a node would be told by the shell's command; only `refused`, with Ray's words, if none."""
    ray, seen = tmp_path / "bin" / "ray", tmp_path / "seen.json"
    ray.parent.mkdir(exist_ok=True)
    ray.write_text(FAKE_RAY, "utf-8")
    ray.chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    path = f"{ray.parent}:{os.environ['PATH']}"
    kept |= {"HOME": str(tmp_path), "PATH": path, "PYTHONPATH": str(ROOT), "SEEN": str(seen)}
    done = subprocess.run(["bash", "-c", command], env=kept, capture_output=True, text=True, timeout=300)
    assert (done.returncode == 0) == seen.exists(), done.stderr
    return json.loads(seen.read_text("utf-8")) if seen.exists() else {"refused": done.stderr}


def start_command(config: dict[str, Any], kind: str) -> str:
    """As Ray sends it to a node of the kind, with the variables that it sets in front of it."""
    from ray.autoscaler._private.command_runner import _with_environment_variables
    from ray.autoscaler._private.util import with_envs

    stop, start = config[f"{'head' if kind == 'head' else 'worker'}_start_ray_commands"]
    assert stop == "ray stop"
    (start,) = with_envs([start], {"RAY_enable_autoscaler_v2": "1"} if kind == "head" else {"RAY_HEAD_IP": "10.0.0.9"})
    node_type = config.get("available_node_types", {}).get(kind, {})
    overrides = {"RAY_OVERRIDE_RESOURCES": node_type.get("resources"), "RAY_OVERRIDE_LABELS": node_type.get("labels")}
    return _with_environment_variables(start, {key: value for key, value in overrides.items() if value})


def give_token(home: Path) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("a" * 64, "utf-8")


@BOTH
def test_secrets_travel_as_files_only(config: dict[str, Any]) -> None:
    assert config["file_mounts"]["~/.ray/auth_token"] == f"~/{token_file().relative_to(Path.home())}"
    assert config["setup_commands"][0] == "chmod 700 ~/.ray && chmod 600 ~/.ray/auth_token"
    text = "\n".join(each for each in commands(config) if not each.startswith("chmod "))
    assert not re.search(r"(?i)auth_token|hf_token|secret|password|access_key|[0-9a-f]{32}", text)


@BOTH
def test_the_versions_are_those_of_the_constraints(config: dict[str, Any], tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    text = "\n".join(commands(config))
    python = re.findall(r"--python ([\d.]+)", text)
    assert python == [project["project"]["requires-python"].removeprefix(">=")]
    assert python == [project["tool"]["mypy"]["python_version"]]
    assert re.findall(r"([\w-]+)==", text) == ["uv"]
    installs = [each for each in config["setup_commands"] if "uv pip install" in each]
    assert all("--constraint ~/hfray/pins.txt" in each for each in [*installs, *config.get("head_setup_commands", [])])
    mounted(config, tmp_path)
    (pin,) = [each for each in config["setup_commands"] if each.startswith("sed ")]
    subprocess.run(["bash", "-c", pin], env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]}, check=True)
    pins = (tmp_path / "hfray" / "pins.txt").read_text("utf-8").splitlines()
    pinned = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert pins == [line.partition("+")[0] for line in pinned]
    from importlib.metadata import version

    assert f"ray=={version('ray')}" in pins


def test_both_files_set_their_nodes_up_alike() -> None:
    assert AWS["setup_commands"] == LOCAL["setup_commands"]
    assert AWS["file_mounts"] == LOCAL["file_mounts"]
    assert AWS["worker_start_ray_commands"] == LOCAL["worker_start_ray_commands"]


def test_workers_start_at_none_and_the_label_is_the_market() -> None:
    assert 1 <= AWS["max_workers"] <= 100
    assert 2 <= AWS["idle_timeout_minutes"] <= 30
    for worker in WORKERS.values():
        assert worker["min_workers"] == 0
        assert 1 <= worker["max_workers"] <= AWS["max_workers"]
    for each in TYPES.values():
        market = each["node_config"].get("InstanceMarketOptions", {}).get("MarketType", "on-demand")
        assert each["labels"] == {"ray.io/market-type": market}
    spot, demand = WORKERS["gpu-spot"], WORKERS["gpu"]
    assert spot["labels"]["ray.io/market-type"] == "spot"
    assert spot["node_config"]["InstanceType"] == demand["node_config"]["InstanceType"]
    assert spot["priority"] > demand.get("priority", 0)


@pytest.mark.slow
@BOTH
def test_ray_takes_the_file_and_would_see_a_typing_error(config: dict[str, Any]) -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))
    with pytest.raises(ValidationError, match="idle_timeout_minute'"):
        validate_config(prepare_config({**config, "idle_timeout_minute": 5}))


@pytest.mark.slow
def test_all_the_machines_that_are_there_are_workers() -> None:
    from ray.autoscaler._private.local.config import LOCAL_CLUSTER_NODE_TYPE
    from ray.autoscaler._private.util import prepare_config

    node_type = prepare_config(LOCAL)["available_node_types"][LOCAL_CLUSTER_NODE_TYPE]
    machines = len(LOCAL["provider"]["worker_ips"])
    assert (node_type["min_workers"], node_type["max_workers"]) == (machines, machines)
    assert LOCAL["provider"]["head_ip"] not in LOCAL["provider"]["worker_ips"]


@pytest.mark.slow
@BOTH
def test_a_head_is_closed_and_does_no_work(config: dict[str, Any], tmp_path: Path) -> None:
    command = start_command(config, "head")
    assert NO_TOKEN in started(tmp_path, command)["refused"]
    give_token(tmp_path)
    seen = started(tmp_path, command)
    assert (seen["head"], seen["cpus"], seen["gpus"]) == (True, 0, 0)
    assert seen["token"]
    assert (seen["dashboard"], seen["client"], seen["port"]) == ("127.0.0.1", None, 6379)
    assert seen["env"]["RAY_USAGE_STATS_ENABLED"] == "0"
    assert Path(seen["autoscaling"]).name == "ray_bootstrap_config.yaml"
    assert seen["env"]["RAY_enable_autoscaler_v2"] == ("1" if config is AWS else "0")
    # What Ray would do of itself, so that the hook cannot become needless unseen.
    assert started(tmp_path, re.sub(r"RAY_START_HOOK=\S+?(?=[ ;])", "", command))["client"] == 10001


@pytest.mark.slow
@pytest.mark.parametrize(("config", "kind"), [(AWS, "gpu-spot"), (AWS, "cpu"), (LOCAL, "worker")])
def test_a_worker_asks_for_the_token_and_knows_its_market(config: dict[str, Any], kind: str, tmp_path: Path) -> None:
    command = start_command(config, kind)
    assert NO_TOKEN in started(tmp_path, command)["refused"]
    give_token(tmp_path)
    seen = started(tmp_path, command)
    assert (seen["head"], seen["gcs"], seen["token"]) == (False, "10.0.0.9:6379", True)
    for key, value in TYPES.get(kind, {}).get("labels", {}).items():
        assert seen["labels"][key] == value


@pytest.mark.slow
def test_what_the_nodes_get_is_enough_to_install_hfray(tmp_path: Path) -> None:
    mounted(AWS, tmp_path)
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path / "hfray", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "hfray").rglob("*.*") if "__pycache__" not in str(path)}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
    assert sources <= names
    assert [name for name in names if name.endswith("/licenses/LICENSE")]
    assert (ROOT / "README.md").read_text("utf-8").strip() in metadata
