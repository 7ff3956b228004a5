"""The flags that every command takes, before its name or after it, and how a command is made."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import click
from penstock.cli.output import Output, make_console
from penstock.cli.session import Session
from penstock.cli.target import (
    PLACES,
    PROFILE_VARIABLE,
    find_target,
    profile_file,
    read_profile,
)

USUAL = ("address", "key")
FLAGS = "penstock.cli.flags"
"""Key of `click.Context.meta`, which a command shares with the group, for the flags given."""


def shared_flags(*, of_group: bool) -> list[click.Parameter]:
    """The flags of every command; each is kept in the context's `meta`.

    The help of the group shows all, that of a command the usual ones.
    """
    places: list[click.Parameter] = [
        click.Option(
            [f"--{name.replace('_', '-')}"],
            help=f"{place.meaning}  [env: {place.variable}]",
            expose_value=False,
            callback=_keep,
            metavar="TEXT",
            hidden=not of_group and name not in USUAL,
        )
        for name, place in PLACES.items()
    ]
    return [
        *places,
        click.Option(
            ["--profile"],
            help=f"profile of the profile file to use  [env: {PROFILE_VARIABLE}]",
            expose_value=False,
            callback=_keep,
        ),
        click.Option(
            ["--timeout"],
            type=click.FloatRange(min=0, min_open=True),
            help="seconds for each call",
            expose_value=False,
            callback=_keep,
        ),
        click.Option(
            ["--json", "as_json"],
            is_flag=True,
            default=None,
            help="print JSON for scripts",
            expose_value=False,
            callback=_keep,
        ),
    ]


class Command(click.Command):
    """A command that takes the shared flags as well."""

    def __init__(
        self, name: str | None, *, params: Sequence[click.Parameter] | None = None, **kwargs: Any
    ) -> None:
        own = list(params or ())
        super().__init__(name, params=[*own, *shared_flags(of_group=False)], **kwargs)


class Group(click.Group):
    """A group whose commands take the shared flags; so does it, before their names."""

    command_class = Command

    def __init__(
        self, name: str | None, *, params: Sequence[click.Parameter] | None = None, **kwargs: Any
    ) -> None:
        own = list(params or ())
        super().__init__(name, params=[*own, *shared_flags(of_group=True)], **kwargs)


Group.group_class = Group


def with_session(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command's function the session as its first argument."""

    @functools.wraps(function)
    def run(**arguments: Any) -> None:
        function(session_of(click.get_current_context()), **arguments)

    return run


def session_of(context: click.Context) -> Session:
    """The session by the flags given.

    Raises:
        click.UsageError: the profile cannot be used.
    """
    flags: dict[str, Any] = context.meta.get(FLAGS, {})
    name = flags.get("profile") or os.environ.get(PROFILE_VARIABLE, "")
    profile = read_profile(name, profile_file())
    target = find_target(flags, os.environ, profile)
    output = Output(make_console(), bool(flags.get("as_json")))
    return Session(target, output, flags.get("timeout") or 0.0)


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> object:
    if value is not None and parameter.name is not None:
        context.meta.setdefault(FLAGS, {})[parameter.name] = value
    return value
