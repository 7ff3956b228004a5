"""`penstock load`: open-loop load on a running Penstock, with a histogram of latencies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

import click
from penstock.cli.commands.texts import texts_of
from penstock.cli.load.open_loop import Arrivals, LoadResult, due_times_s, run_open_loop
from penstock.cli.load.report import load_data, load_report
from penstock.cli.options import Command, with_session
from penstock.cli.session import Session
from penstock.client import Penstock, Run
from penstock.service.clock import SystemClock

TIMEOUT_S = 30.0
DEFAULT_TEXT = "where is the parcel that I ordered last week"
LABELS = {
    "order": ["where is my parcel", "when does it arrive"],
    "refund": ["I want my money back", "you charged me twice"],
}
DOCUMENTS = [text for texts in LABELS.values() for text in texts]
TASKS: Mapping[str, Callable[[Penstock, str, str, Run], Awaitable[object]]] = {
    "embed": lambda client, text, model, run: client.embed([text], model=model, run=run),
    "classify": lambda client, text, model, run: client.classify(
        [text], LABELS, model=model, run=run
    ),
    "rerank": lambda client, text, model, run: client.rerank(text, DOCUMENTS, model=model, run=run),
    "generate": lambda client, text, model, run: client.generate(text, model=model, run=run),
}
"""The calls of each task for a text."""


@click.command(cls=Command)
@click.argument("texts", nargs=-1)
@click.option("--file", help="file of texts to send in turn, one a line; - is standard input")
@click.option("--task", type=click.Choice(tuple(TASKS)), default="embed", show_default=True)
@click.option("--model", default="", help="model to use; default: the router's")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=20.0,
    show_default=True,
    help="calls a second, whether or not earlier ones are answered",
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="seconds",
)
@click.option(
    "--arrivals",
    type=click.Choice(("poisson", "constant")),
    default="poisson",
    show_default=True,
    help="independent callers, or equal gaps",
)
@click.option("--repeat", is_flag=True, help="send texts unchanged, so that the cache may answer")
@click.option("--max-in-flight", default=10_000, show_default=True, help="unanswered calls at most")
@click.option("--seed", default=1, show_default=True, help="of the arrivals")
@with_session
def load(
    session: Session,
    texts: tuple[str, ...],
    file: str,
    task: str,
    model: str,
    rate: float,
    duration: float,
    arrivals: Arrivals,
    repeat: bool,
    max_in_flight: int,
    seed: int,
) -> None:
    """Send calls at a fixed rate and show how long answers take.

    Calls are due at times fixed beforehand, and latency counts from then: a slow system does not
    slow the load down (no coordinated omission). Failures are counted, not retried.
    """
    wanted = texts_of(texts, file) if texts or file else [DEFAULT_TEXT]
    due_s = due_times_s(rate, duration, arrivals, random.Random(seed))

    async def run() -> LoadResult:
        async with Penstock(session.target.address, session.target.key, retries=0) as client:
            await client.list_models()  # A wrong address or key ends here, before the load.
            send = _sender(session, client, task, model, wanted, repeat)
            return await run_open_loop(send, due_s, SystemClock(), max_in_flight)

    result = asyncio.run(run())
    session.output.show(*load_report(result, rate), data=load_data(result, rate))
    if not result.latencies.total:
        raise click.ClickException("no call was answered")


def _sender(
    session: Session,
    client: Penstock,
    task: str,
    model: str,
    texts: Sequence[str],
    repeat: bool,
) -> Callable[[int], Awaitable[object]]:
    """The function that sends the call of a number; texts take turns, and each call's differs from
    all others unless `repeat`.
    """

    call = TASKS[task]

    async def send(number: int) -> object:
        text = texts[number % len(texts)]
        text = text if repeat else f"{text} #{number}"
        return await call(client, text, model, session.run(TIMEOUT_S, "load"))

    return send
