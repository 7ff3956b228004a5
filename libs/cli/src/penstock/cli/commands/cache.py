"""`penstock cache`: what the cache answered, what it refused, and what that saved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import click
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cli.options import Command, with_session
from penstock.cli.output import dollars, plain, table
from penstock.cli.session import Session
from rich.table import Table
from rich.text import Text

CACHE = pb.DESCRIPTOR.services_by_name["CacheService"]


@click.command(cls=Command)
@click.option("--organisation", default="", help="only this tenant; default: everybody")
@click.option("--namespace", default="", help="only this namespace; default: all")
@with_session
def cache(session: Session, organisation: str, namespace: str) -> None:
    """Show hits, misses and refusals by rule, and what was saved."""
    stats = asyncio.run(_stats(session, organisation, namespace))
    lookups = sum(stats.lookups.values())
    share = f" ({stats.hits / lookups:.1%})" if lookups else ""
    head = Text(
        f"{stats.hits:,} of {lookups:,} look-ups answered{share}; {stats.entries:,} entries, "
        f"{stats.bytes / 1e6:,.1f} MB; saved {dollars(stats.saved_microusd)} and "
        f"{stats.saved_ms / 1e3:,.1f} s"
    )
    parts: list[Text | Table] = [head]
    if stats.audits:
        parts.append(
            Text(
                f"{stats.audits:,} audits of semantic hits: {stats.audited_precision:.1%} right, "
                f"at least {stats.audited_precision_low:.1%} with 95 % confidence"
            )
        )
    parts += _counts("look-ups by rule", stats.lookups.items())
    parts += _counts("answers not kept, by reason", stats.refused.items())
    session.output.show(*parts, data=stats)


def _counts(title: str, counts: Iterable[tuple[str, int]]) -> list[Text | Table]:
    """A table of counts, the largest first; nothing where there are none."""
    rows = sorted(counts, key=lambda item: -item[1])
    if not rows:
        return []
    shown = table(title, "number", right=("number",))
    for name, count in rows:
        shown.add_row(plain(name), f"{count:,}")
    return [Text(""), shown]


async def _stats(session: Session, organisation: str, namespace: str) -> pb.GetStatsResponse:
    async with session.peer(session.target.cache, CACHE) as peer:
        stats: pb.GetStatsResponse = await peer.call(
            "GetStats", pb.GetStatsRequest(namespace=namespace), session.call(organisation)
        )
        return stats
