"""`penstock up`, `demo` and `config`: run by the package penstock-stack, which services need and a
client does not.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from penstock.cli.options import Command, Group, session_of, with_session
from penstock.cli.session import Session

STACK = "penstock.stack"
CONFIG = click.Path(path_type=Path, dir_okay=False)
DEFAULT_CONFIG = Path("deploy/penstock.yaml")
SHAPES = ("cell", "processes")


@click.command(cls=Command)
@click.option(
    "--config",
    type=CONFIG,
    default=None,
    help="YAML file of keys, limits, prices, routes, instances and upstreams  "
    f"[default: {DEFAULT_CONFIG}]",
)
@click.option("--shape", type=click.Choice(SHAPES), help="which services share a process")
@click.option("--tls", is_flag=True, help="speak TLS, by certificates of a development authority")
def up(config: Path | None, shape: str | None, tls: bool) -> None:
    """Run every service here until Ctrl-C."""
    chosen = ["--config", str(config)] if config else []
    become(STACK, ["up", *chosen, *_layout(shape, tls)])


@click.command(cls=Command)
@click.option("--shape", type=click.Choice(SHAPES), help="which services share a process")
@click.option("--tls", is_flag=True, help="speak TLS, by certificates of a development authority")
def demo(shape: str | None, tls: bool) -> None:
    """Send 400 agent requests to services on free ports, and show what each service does."""
    as_json = session_of(click.get_current_context()).output.as_json
    flags = ["--json"] if as_json else []
    become(STACK, ["demo", *flags, *_layout(shape, tls)])


def _layout(shape: str | None, tls: bool) -> list[str]:
    return [*(["--shape", shape] if shape else []), *(["--tls"] if tls else [])]


@click.group(cls=Group)
def certs() -> None:
    """Certificates for development."""


@certs.command("dev")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="folder  [default: $PENSTOCK_HOME/tls]",
)
def certs_dev(out: Path | None) -> None:
    """Make an authority, and certificates for each service and an operator of this machine."""
    become(STACK, ["certs", *(["--out", str(out)] if out else [])])


@click.group(cls=Group)
def config() -> None:
    """Check the configuration file, or print its JSON schema."""


@config.command("check")
@click.argument("file", type=CONFIG, default=DEFAULT_CONFIG)
@with_session
def check(session: Session, file: Path) -> None:
    """Name every fault of the configuration file with line and column.

    Ends with status 2 where there is one.
    """
    flags = ["--json"] if session.output.as_json else []
    become(STACK, ["config", "check", str(file), *flags])


@config.command("schema")
def schema() -> None:
    """Print the JSON schema of the configuration file, for editors."""
    become(STACK, ["config", "schema"])


def become(module: str, arguments: Sequence[str]) -> None:
    """Replace this process by a module of Penstock, so that signals and status are the module's.

    Raises:
        click.UsageError: its package is not installed.
    """
    command = module_command(module, arguments)
    sys.stdout.flush()
    os.execv(command[0], command)


def run_module(module: str, arguments: Sequence[str]) -> int:
    """Run a module of Penstock with this terminal; returns its exit status.

    Raises:
        click.UsageError: its package is not installed.
    """
    return subprocess.run(module_command(module, arguments), check=False).returncode


def module_command(module: str, arguments: Sequence[str]) -> list[str]:
    """The command line that runs a module with this interpreter.

    Raises:
        click.UsageError: its package is not installed.
    """
    if importlib.util.find_spec(module) is None:
        package = module.replace(".", "-")
        raise click.UsageError(
            f"the package {package} is not installed; run this in a checkout after `make setup`"
        )
    return [sys.executable, "-m", module, *arguments]
