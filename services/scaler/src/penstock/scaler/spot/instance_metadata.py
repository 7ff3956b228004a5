"""The metadata services of the clouds, which announce to a machine that it will be terminated."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from penstock.scaler.spot.notices import (
    BadNotice,
    Notice,
    azure_events,
    gcp_preempted,
    parse_notices,
)
from penstock.service.clock import Clock

log = logging.getLogger(__name__)

POLL_S = 5.0
REQUEST_TIMEOUT_S = 1.0
MAX_BYTES = 64 << 10
THIS_MACHINE = "this machine"
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
"""Metadata is the machine's own: never through a proxy."""


class MetadataService(Protocol):
    """The metadata service of one cloud."""

    def notices(self, now_s: float) -> list[Notice]:
        """Return the terminations that are planned for this machine.

        Blocks up to two seconds: not for an event loop.

        Raises:
            OSError: nobody answers, or there is no such service.
            BadNotice: the answer is not of the service's format.
        """
        ...


class Ec2Metadata:
    """EC2, version 2: a token first, then `spot/instance-action`, which does not exist (404) until
    a termination is planned.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def notices(self, now_s: float) -> list[Notice]:
        token = _request(
            f"{self._url}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT"
        )
        action = _request(
            f"{self._url}/latest/meta-data/spot/instance-action",
            {"X-aws-ec2-metadata-token": token},
        )
        return parse_notices(_parsed_json(action), THIS_MACHINE, now_s)


class GcpMetadata:
    """Compute Engine: `instance/preempted` is TRUE from the notice on, 30 s before the end."""

    def __init__(self, url: str) -> None:
        self._url = url

    def notices(self, now_s: float) -> list[Notice]:
        preempted = _request(
            f"{self._url}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}
        )
        return gcp_preempted(preempted, THIS_MACHINE, now_s)


class AzureMetadata:
    """Scheduled Events. They list other machines as well, so the name of this one is read first."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._name = ""

    def notices(self, now_s: float) -> list[Notice]:
        headers = {"Metadata": "true"}
        if not self._name:
            query = urllib.parse.urlencode({"api-version": "2021-02-01", "format": "text"})
            url = f"{self._url}/metadata/instance/compute/name?{query}"
            self._name = _request(url, headers).strip()
        url = f"{self._url}/metadata/scheduledevents?api-version=2020-07-01"
        body = _parsed_json(_request(url, headers))
        if not isinstance(body, Mapping):
            raise BadNotice("the message must be a JSON object")
        notices = azure_events(body.get("Events"), self._name, now_s)
        return [notice for notice in notices if notice.instance == self._name]


CLOUDS: Mapping[str, Callable[[str], MetadataService]] = {
    "ec2": Ec2Metadata,
    "gcp": GcpMetadata,
    "azure": AzureMetadata,
}
"""Makes the metadata service of a cloud, given its URL."""


async def wait_for_notice(
    services: Sequence[MetadataService],
    on_notice: Callable[[Notice], Awaitable[object]],
    clock: Clock,
) -> None:
    """Poll metadata services every 5 s; call `on_notice` with the first notice, and return."""
    while True:
        for service in services:
            try:
                found = await asyncio.to_thread(service.notices, clock.time())
            except OSError:
                # No such service here, or not now; the next poll tries again.
                continue
            except BadNotice as error:
                name = type(service).__name__
                log.warning("%s gave an answer of another format: %s", name, error)
                continue
            if found:
                await on_notice(found[0])
                return
        await clock.sleep(POLL_S)


def _request(url: str, headers: Mapping[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(url, method=method, headers=dict(headers))
    try:
        with _open(request, timeout=REQUEST_TIMEOUT_S) as answer:
            body: bytes = answer.read(MAX_BYTES)
    except http.client.HTTPException as error:
        raise OSError(f"{url}: {error}") from None
    return body.decode("latin-1")


def _parsed_json(text: str) -> object:
    try:
        parsed: object = json.loads(text)
    except ValueError:
        raise BadNotice("the message is not JSON") from None
    return parsed
