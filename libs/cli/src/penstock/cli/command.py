"""The command `penstock`: its commands, and how failures end it.

Exit status: 0 done; 1 Penstock refused, failed or did not answer; 2 the command line, the
configuration or a file cannot be used; 130 stopped by Ctrl-C. A failure is one line on standard
error that says what to do; with `--json` a JSON object.
"""

from __future__ import annotations

import json
import os
import sys

import click
from penstock.cli.commands.cache import cache
from penstock.cli.commands.chat import chat
from penstock.cli.commands.completion import completion
from penstock.cli.commands.fleet import explain, instances
from penstock.cli.commands.keys import keys
from penstock.cli.commands.load import load
from penstock.cli.commands.models import models
from penstock.cli.commands.runs import runs
from penstock.cli.commands.spending import limits, usage
from penstock.cli.commands.stack import certs, config, demo, up
from penstock.cli.commands.texts import classify, embed, rerank
from penstock.cli.commands.traces import top, trace
from penstock.cli.options import Group
from penstock.cli.problems import call_details, call_problem
from penstock.client import PenstockError
from penstock.client.errors import from_fault
from penstock.rpc.errors import Fault
from rich.console import Console
from rich.text import Text

FAILED = 1
USAGE_ERROR = 2
INTERRUPTED = 130
"""As shells have it: 128 and the signal's number."""
COMMANDS = (
    up,
    demo,
    chat,
    embed,
    classify,
    rerank,
    models,
    instances,
    explain,
    runs,
    keys,
    limits,
    usage,
    cache,
    trace,
    top,
    load,
    config,
    certs,
    completion,
)


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def penstock() -> None:
    """Start Penstock, call it, and see what it does.

    Addresses and secrets come from flags, environment variables, a profile of
    ~/.config/penstock/profiles.toml, or fit `penstock up` on this machine.
    """


for _command in COMMANDS:
    penstock.add_command(_command)


def main() -> None:
    """Run the command and end the process with its exit status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit status."""
    try:
        status = penstock.main(arguments, prog_name="penstock", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE_ERROR
    except click.ClickException as error:
        return _fail(arguments, _with_hint(error), error.exit_code)
    except PenstockError as error:
        return _fail(arguments, call_problem(error), FAILED, call_details(error))
    except Fault as fault:
        failure = from_fault(fault)
        return _fail(arguments, call_problem(failure), FAILED, call_details(failure))
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python must not flush into it again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED


def _fail(
    arguments: list[str], problem: str, status: int, details: dict[str, object] | None = None
) -> int:
    """Say why in one line on standard error; returns the exit status."""
    line = " ".join(problem.split())
    if "--json" in arguments:
        sys.stderr.write(json.dumps({"error": {**(details or {}), "message": line}}) + "\n")
    else:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            Text(f"penstock: {line}", style="red")
        )
    return status


def _with_hint(error: click.ClickException) -> str:
    """The error's text; for a wrong command line, with the command whose help to read."""
    message = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message.rstrip('.')}; see `{error.ctx.command_path} --help`"
    return message
