"""The options of the command `replay`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

RENAMED = {
    "--least": "--min-instances",
    "--most": "--max-instances",
    "--under": "--shortage-cost",
    "--over": "--excess-cost",
    "--utilisation": "--target-utilisation",
    "--lead-s": "--lead-time-s",
}
"""New names of options by old names; an old name is refused with the new one."""


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options by name; ends the program with status 2 where one is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m penstock.scaler replay",
        description="Replay a demand trace: a CSV of times (Unix seconds or ISO 8601), work, and "
        "optionally backlog.",
        epilog="The last line is a JSON object with shortfall, over-provision and coverage.",
    )
    _add_trace(parser)
    _add_pool(parser)
    _add_output(parser)
    for old, new in RENAMED.items():
        parser.add_argument(old, action=_Renamed, const=new, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


class _Renamed(argparse.Action):
    """Refuses an option that has a new name, given as `const`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> NoReturn:
        parser.error(f"{option_string} has a new name; use {self.const}")


def _add_trace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trace", type=Path, help="the CSV file")
    parser.add_argument(
        "--time",
        default="",
        metavar="COLUMN",
        help="column of the times, by its name in the head (default: the first)",
    )
    parser.add_argument(
        "--work", default="", metavar="COLUMN", help="column of the work (default: the second)"
    )
    parser.add_argument(
        "--bin-s",
        type=_positive,
        default=0.0,
        help="add up lines within so many seconds, as for one line a request",
    )


def _add_pool(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        help="replay a pool of this configuration file, instead of the options below",
    )
    parser.add_argument("--pool", default="", help="which pool of the file (default: the only one)")
    parser.add_argument(
        "--level", type=float, default=0.95, help="quantile of demand to provide for (default 0.95)"
    )
    parser.add_argument(
        "--shortage-cost",
        type=float,
        help="cost of a unit of work without capacity; with --excess-cost it gives the level",
    )
    parser.add_argument("--excess-cost", type=float, help="cost of a unit of unused capacity")
    parser.add_argument(
        "--capacity",
        type=float,
        default=0.0,
        help="work of one instance a second (default: peak / max instances)",
    )
    parser.add_argument(
        "--target-utilisation",
        type=float,
        default=1.0,
        help="share of the capacity to plan with (default 1)",
    )
    parser.add_argument(
        "--lead-time-s",
        type=float,
        default=0.0,
        help="seconds from decision to ready (default: one step)",
    )
    parser.add_argument(
        "--start-cost-s", type=float, default=0.0, help="cost of a start, in instance seconds"
    )
    parser.add_argument("--min-instances", type=int, default=1, help="fewest instances (default 1)")
    parser.add_argument(
        "--max-instances", type=int, default=100, help="most instances (default 100)"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.svg", help="draw demand and the capacity for it"
    )
    parser.add_argument(
        "--json", action="store_true", help="print every decision as a JSON line, not only changes"
    )


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be more than 0, got {text}")
    return value
