"""`hfray render`: what other programs need to do the same work. Knows the command line; the manifests are
`kinds/kuberay.py`'s."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from hfray.cli_options import Debug, Overrides, load_job_file
from hfray.errors import SpecError

render = typer.Typer(
    name="render",
    help="Print what other programs need to do the same work.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@render.callback()
def _group() -> None:
    """Without it typer would make the only command of the group the group itself."""


@render.command()
def kuberay(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="A job (becomes a RayJob) or a Ray Serve file (a RayService).", metavar="[FILE]", show_default=False
        ),
    ] = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="A RayCluster instead, which jobs are sent to; shaped by --set workers.*")
    ] = False,
    overrides: Overrides = None,
    image: Annotated[
        str | None, typer.Option("--image", help="Made of deploy/Dockerfile; default: hfray and its version.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Default: the job's, or the Serve file's.")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", help="Default: kubectl's.")] = None,
    volume: Annotated[
        str | None,
        typer.Option(
            "--volume",
            metavar="CLAIM:PATH",
            help="A PersistentVolumeClaim and where all pods mount it; relative paths begin there.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Print KubeRay manifests for the same work: hfray render kuberay FILE | kubectl apply -f -"""
    from hfray.kinds.kuberay import IMAGE, ClusterShape, Place, ray_cluster, ray_job, ray_service
    from hfray.kinds.kuberay_paths import parse_volume
    from hfray.spec.load import job_text, load_settings
    from hfray.spec.serve_file import is_serve_file, load_serve_file

    words = ["hfray", "render", "kuberay", *([] if file is None else [str(file)]), *(["--cluster"] if cluster else [])]
    settings = {
        "--set": overrides or (),
        "--image": image,
        "--name": name,
        "--namespace": namespace,
        "--volume": volume,
    }
    for option, given in settings.items():
        for value in [given] if isinstance(given, str) else given or ():
            words += [option, value]
    mounted = None if volume is None else parse_volume(volume)
    place = Place(name, _namespace(namespace), _image(image) if image is not None else IMAGE, mounted)
    if (file is None) is not cluster:
        raise SpecError("hfray render kuberay: name one file, a job or a Ray Serve file, or else say --cluster")
    if file is None:
        rendered = ray_cluster(load_settings(ClusterShape, overrides or ()).workers, place)
    elif is_serve_file(file):
        if overrides:
            raise SpecError(f"--set {overrides[0]}: is for jobs; change {file} itself")
        rendered = ray_service(load_serve_file(file), place)
    else:
        job = load_job_file(file, overrides or ())
        rendered = ray_job(job, file, job_text(file, overrides or ()), place, overrides or ())
    print(rendered.text(shlex.join(words)), end="")


def _namespace(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text):
        raise SpecError(f"--namespace {text}: Kubernetes takes at most 63 lower-case letters, digits and dashes")
    return text


def _image(text: str) -> str:
    if not re.fullmatch(r"[\w.:/@-]+", text, re.ASCII):
        raise SpecError(f"--image {text!r}: not the name of an image, such as registry/hfray:1.0")
    return text
