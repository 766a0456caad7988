"""A Ray Serve file: applications of models and a gateway, checked at both levels. Ray Serve itself takes any key
and would say nothing of a typo. Opens that one file; knows no Ray."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hfray.errors import SpecError
from hfray.spec.endpoint import APPLICATIONS, GATEWAY_PATH, MODEL_PATH, EndpointSpec, GatewaySpec
from hfray.spec.fields import NAME_PATTERN
from hfray.spec.load import Citation, read_text
from hfray.spec.problems import close_or_known, problems, shown
from hfray.spec.shape import Keys
from hfray.spec.yaml_lines import parse

_FILE_KEYS = (
    "applications", "proxy_location", "http_options", "grpc_options", "logging_config", "target_capacity",
)  # fmt: skip
_APPLICATION_KEYS = (
    "name", "import_path", "args", "route_prefix", "runtime_env", "deployments", "logging_config",
    "autoscaling_policy", "external_scaler_enabled",
)  # fmt: skip
_OURS = "hfray.serving."


@dataclass(frozen=True, slots=True)
class ServeFile:
    """A checked file."""

    path: str
    content: Mapping[str, Any]
    """As Ray Serve takes it."""
    gateway: GatewaySpec
    gateway_name: str
    models: Mapping[str, EndpointSpec]
    """By the name that requests use."""


def is_serve_file(path: str | Path) -> bool:
    """Whether a file looks like one for Ray Serve rather than a job. Raises SpecError for a file that is no YAML."""
    value = parse(read_text(Path(path)), str(path)).value
    return isinstance(value, dict) and "applications" in value and "kind" not in value


def load_serve_file(path: str | Path) -> ServeFile:
    """Raises SpecError with one line for each problem, in the order of the file."""
    name = str(path)
    document = parse(read_text(Path(path)), name)
    value = document.value
    cite = Citation(name, document)
    if not isinstance(value, dict) or not isinstance(value.get("applications"), list) or not value["applications"]:
        raise SpecError(f"{cite(())}: a Ray Serve file needs a list of applications; see serve_configs/")
    found: dict[Keys, str] = dict(_unknown((), value, _FILE_KEYS))
    if value.get("proxy_location") != "Disabled":
        found["proxy_location",] = (
            "must be Disabled: hfray's gateway listens itself, and Ray Serve's own proxy would open a second way in"
        )
    models: dict[str, EndpointSpec] = {}
    gateways: dict[str, GatewaySpec] = {}
    names: set[str] = set()
    for number, each in enumerate(value["applications"]):
        keys: Keys = ("applications", number)
        if not isinstance(each, dict):
            found[keys] = f"must be a section of keys, not {shown(each)}"
            continue
        found |= _unknown(keys, each, _APPLICATION_KEYS)
        app_name = each.get("name")
        if not isinstance(app_name, str) or re.fullmatch(NAME_PATTERN, app_name) is None:
            found[*keys, "name"] = "must be lower-case letters, digits, `.`, `_`, `-`: requests name the model by it"
        elif app_name in names:
            found[*keys, "name"] = f"{app_name!r} is the name of another application"
        names.add(str(app_name))
        spec, wrong = _arguments(keys, each)
        found |= wrong
        if isinstance(spec, EndpointSpec):
            models[str(app_name)] = spec
            if each.get("route_prefix", "/") is not None:
                found[*keys, "route_prefix"] = "must be null: requests reach a model through the gateway"
        elif isinstance(spec, GatewaySpec):
            gateways[str(app_name)] = spec
    if len(gateways) != 1 and not found:
        found["applications",] = f"needs one application of {GATEWAY_PATH}, and has {len(gateways)}"
    if found:
        raise cite.error(found)
    ((gateway_name, gateway),) = gateways.items()
    return ServeFile(name, value, gateway, gateway_name, models)


def _arguments(keys: Keys, app: Mapping[str, Any]) -> tuple[BaseModel | None, dict[Keys, str]]:
    """The arguments of an application of ours, or what is wrong with them. Others are Ray Serve's business."""
    path = app.get("import_path")
    if not isinstance(path, str):
        return None, {(*keys, "import_path"): f"must be {MODEL_PATH} or {GATEWAY_PATH}"}
    kind = APPLICATIONS.get(path)
    if kind is None:
        if path.startswith(_OURS):
            return None, {(*keys, "import_path"): f"unknown {shown(path)}{close_or_known(path, APPLICATIONS)}"}
        return None, {}
    try:
        return kind.model_validate(app.get("args") or {}), {}
    except ValidationError as error:
        wrong = problems(kind, error.errors(include_url=False))
        return None, {(*keys, "args", *each): text for each, text in wrong.items()}


def _unknown(keys: Keys, section: Mapping[str, Any], known: tuple[str, ...]) -> dict[Keys, str]:
    return {(*keys, key): f"unknown key{close_or_known(key, known)}" for key in section if key not in known}
