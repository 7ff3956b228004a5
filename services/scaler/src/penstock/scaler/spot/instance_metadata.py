"""The machine's own metadata service, in each cloud's shape: whether this machine will be taken
away. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from penstock.scaler.spot.notices import BadNotice, Notice, azure_events, gcp_preempted, parse
from penstock.service.clock import Clock

log = logging.getLogger(__name__)

WATCH_S = 5.0
ANSWER_S = 1.0
MOST_BYTES = 64 << 10
THIS = "this machine"
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
"""Metadata is the machine's own: never through a proxy."""


class Metadata(Protocol):
    """One cloud's metadata service, at the address given."""

    def notices(self, now_s: float) -> list[Notice]:
        """What is planned for this machine; none while nothing is.

        Blocks up to two seconds: not for an event loop.

        Raises:
            OSError: nobody answers, or no such service is there. BadNotice: it says what nobody
                understands.
        """
        ...


class Ec2Metadata:
    """EC2, version 2 of the service: a token first, then `spot/instance-action`, which is missing
    (404) until something is planned.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def notices(self, now_s: float) -> list[Notice]:
        token = _ask(
            f"{self._url}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT"
        )
        said = _ask(
            f"{self._url}/latest/meta-data/spot/instance-action",
            {"X-aws-ec2-metadata-token": token},
        )
        return parse(_json(said), THIS, now_s)


class GcpMetadata:
    """Compute Engine: `instance/preempted` says TRUE from the notice on, 30 s before the end."""

    def __init__(self, url: str) -> None:
        self._url = url

    def notices(self, now_s: float) -> list[Notice]:
        said = _ask(
            f"{self._url}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}
        )
        return gcp_preempted(said, THIS, now_s)


class AzureMetadata:
    """Scheduled Events: a list that speaks of the machine's neighbours as well, so it is asked
    first who this machine is.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._name = ""

    def notices(self, now_s: float) -> list[Notice]:
        words = {"Metadata": "true"}
        if not self._name:
            query = urllib.parse.urlencode({"api-version": "2021-02-01", "format": "text"})
            self._name = _ask(f"{self._url}/metadata/instance/compute/name?{query}", words).strip()
        said = _json(_ask(f"{self._url}/metadata/scheduledevents?api-version=2020-07-01", words))
        if not isinstance(said, Mapping):
            raise BadNotice("the message must be a JSON object")
        return [
            one
            for one in azure_events(said.get("Events"), self._name, now_s)
            if one.instance == self._name
        ]


CLOUDS: Mapping[str, Callable[[str], Metadata]] = {
    "ec2": Ec2Metadata,
    "gcp": GcpMetadata,
    "azure": AzureMetadata,
}


async def watch(
    services: Sequence[Metadata], tell: Callable[[Notice], Awaitable[object]], clock: Clock
) -> None:
    """Ask every 5 s until one says that this machine goes; then tell of it once and end.

    Those that do not answer are asked again.
    """
    while True:
        for service in services:
            try:
                found = await asyncio.to_thread(service.notices, clock.time())
            except OSError:
                continue
            except BadNotice as error:
                log.warning("%s said something else: %s", type(service).__name__, error)
                continue
            if found:
                await tell(found[0])
                return
        await clock.sleep(WATCH_S)


def _ask(url: str, headers: Mapping[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(url, method=method, headers=dict(headers))
    try:
        with _open(request, timeout=ANSWER_S) as answer:
            body: bytes = answer.read(MOST_BYTES)
    except http.client.HTTPException as error:
        raise OSError(f"{url}: {error}") from None
    return body.decode("latin-1")


def _json(text: str) -> object:
    try:
        said: object = json.loads(text)
    except ValueError:
        raise BadNotice("the message is not JSON") from None
    return said
