"""`penstock models`: the models that can be called; add one of one's own, remove it again."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.cli import adding
from penstock.cli.commands.stack import module_command
from penstock.cli.options import Group, with_session
from penstock.cli.output import plain, table
from penstock.cli.session import ANSWER_TIMEOUT_S, Session
from penstock.cli.target import home_folder
from penstock.client import PenstockError, PenstockSync
from rich.text import Text

FACTORY = "penstock.models"
TORCH_SCRIPT = Path("scripts/model")
"""In a checkout: runs a step of the factory in an environment that has torch."""
INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
LOAD_TIMEOUT_S = 300.0
READY_TIMEOUT_S = 120.0
POLL_S = 0.5
TASK = "TASK_KIND_"


@click.group(cls=Group, invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the models that can be called; `add` brings one of your own."""
    if context.invoked_subcommand is None:
        context.invoke(list_models)


@models.command("list")
@with_session
def list_models(session: Session) -> None:
    """List the models that can be called, with tasks, instances and prices."""
    with session.client() as client:
        answer = client.list_models()
    shown = table(
        "model",
        "tasks",
        "ready",
        "input tokens",
        "$ per M in",
        "out",
        right=("ready", "input tokens", "$ per M in", "out"),
    )
    for row in answer.models:
        tasks = (inference_pb2.TaskKind.Name(task) for task in row.tasks)
        shown.add_row(
            plain(row.name),
            ", ".join(task.removeprefix(TASK).lower() for task in tasks),
            str(row.ready_instances),
            f"{row.max_input_tokens:,}" if row.max_input_tokens else "–",
            f"{row.input_microusd_per_mtok / 1e6:.2f}",
            f"{row.output_microusd_per_mtok / 1e6:.2f}",
        )
    empty = Text("no model is served; `penstock models add` brings one", style="yellow")
    session.output.show(shown if answer.models else empty, data=answer)


@models.command("add")
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("--name", default="", help="the model's name; default: the source's")
@click.option(
    "--task",
    type=click.Choice(("embed", "classify", "pair", "infer")),
    help="of an encoder or ONNX graph; default: what the directory says, else embed",
)
@click.option("--labels", default="", help="names of the classes, separated by commas")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="tokenizer.json of an ONNX file; default: the one beside it",
)
@click.option("--licence", default="", help="the model's licence, for its card")
@click.option(
    "--floor", default=0.985, show_default=True, help="lowest mean cosine to the original's"
)
@click.option(
    "--home", type=click.Path(path_type=Path), help="folder of models  [env: PENSTOCK_HOME]"
)
@with_session
def add(
    session: Session,
    source: Path,
    name: str,
    task: str | None,
    labels: str,
    tokenizer: Path | None,
    licence: str,
    floor: float,
    home: Path | None,
) -> None:
    """Import a model, judge it, and serve it without a restart.

    SOURCE is a Hugging Face directory, a .onnx file or a .gguf file.
    """
    home = home or home_folder()
    options = adding.Options(task or "", labels, tokenizer, licence, floor)
    kind, name = adding.kind_of(source), adding.name_of(source, name)
    problem = adding.memory_problem(adding.weight_bytes(source), adding.available_memory_bytes())
    if problem:
        raise click.UsageError(f"{source}: {problem}")
    plan = adding.plan_import(source, kind, name, home / "models", options)
    figures = _make(plan)
    adding.write_added(home, adding.with_model(adding.added_instances(home), name))
    ready, outcome = _serve(session, name)
    shown = table("figure", "value", right=("value",))
    for figure, value in figures.items():
        shown.add_row(figure, f"{value:.5g}")
    data = {"model": name, "version": plan.target.name, "figures": figures, "ready": ready}
    session.output.show(shown, Text(f"{name} {plan.target.name}: {outcome}"), data=data)


@models.command("remove")
@click.argument("name")
@click.option(
    "--home", type=click.Path(path_type=Path), help="folder of models  [env: PENSTOCK_HOME]"
)
@with_session
def remove(session: Session, name: str, home: Path | None) -> None:
    """Stop serving a model that `add` brought; its files stay."""
    home = home or home_folder()
    entries = adding.added_instances(home)
    rest = adding.without_model(entries, name)
    if rest == entries:
        raise click.UsageError(f"{name!r} was not added here ({home / adding.ADDED_FILE})")
    adding.write_added(home, rest)
    session.output.show(
        f"{name} is no longer served; its files are in {home / 'models' / name}",
        data={"model": name, "removed": True},
    )


def _make(plan: adding.Import) -> dict[str, float]:
    """Run the factory's steps; returns what the last one measured.

    Raises:
        click.UsageError: a step refused the model. Nothing half-made is left.
    """
    figures: dict[str, float] = {}
    for step in plan.steps:
        command = [*_factory(step), "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=None, text=True, check=False)
        if done.returncode != 0:
            for folder in (*plan.by_products, plan.target):
                shutil.rmtree(folder, ignore_errors=True)
            raise click.UsageError(
                f"the model was refused while it was made ({step.arguments[0]}); the line above "
                "says why"
            )
        figures = _last_json(done.stdout)
    return figures


def _factory(step: adding.Step) -> Sequence[str]:
    """The command line of a step; one that needs torch runs where it is, or in a checkout's script.

    Raises:
        click.UsageError: torch is needed and cannot be had.
    """
    if not step.needs_torch or importlib.util.find_spec("torch") is not None:
        return module_command(FACTORY, step.arguments)
    if not TORCH_SCRIPT.exists():
        raise click.UsageError(
            "a Hugging Face directory is exported with torch, which is not installed; install it, "
            "or run this at the root of a checkout, which brings it for this step"
        )
    return [str(TORCH_SCRIPT), sys.prefix, *step.arguments]


def _last_json(text: str) -> dict[str, float]:
    """The JSON object in the last line of a step's output; empty where there is none."""
    lines = text.strip().splitlines()
    try:
        figures: dict[str, float] = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return figures


def _serve(session: Session, name: str) -> tuple[bool, str]:
    """Bring the newest version into service; returns whether it serves, and what happened."""
    try:
        with session.client() as client:
            addresses = _serving(client, name)
            if addresses:
                asyncio.run(_load(session, name, addresses))
                return True, f"{len(addresses)} instances serve the new version"
            if _wait_until_ready(client, name):
                return True, "served now; no restart was needed"
    except PenstockError as error:
        if error.code != "UNAVAILABLE":
            raise
        return False, "made; `penstock up` will serve it"
    return False, (
        f"made, but not served after {READY_TIMEOUT_S:g} s; see the log of `penstock up`"
    )


def _serving(client: PenstockSync, name: str) -> list[str]:
    """The addresses of instances that have the model already."""
    board: pb.GetScoreboardResponse = client.call("GetScoreboard", pb.GetScoreboardRequest())
    return [
        row.instance.address
        for row in board.rows
        if any(model.name == name for model in row.instance.models)
    ]


async def _load(session: Session, name: str, addresses: Sequence[str]) -> None:
    """Let each instance load the newest version; it serves the old one until then.

    Raises:
        Fault: an instance refused the version, or does not answer.
    """
    request = inference_pb2.LoadModelRequest(name=name)
    for address in addresses:
        async with session.peer(address, INFERENCE) as peer:
            call = session.call()._replace(deadline_s=time.monotonic() + LOAD_TIMEOUT_S)
            await peer.call("LoadModel", request, call)


def _wait_until_ready(client: PenstockSync, name: str) -> bool:
    """Whether an instance serves the model within `READY_TIMEOUT_S`."""
    end_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < end_s:
        run = client.run(timeout_s=ANSWER_TIMEOUT_S)
        answer: Any = client.call("ListModels", pb.ListModelsRequest(), run)
        if any(row.name == name and row.ready_instances for row in answer.models):
            return True
        time.sleep(POLL_S)
    return False
