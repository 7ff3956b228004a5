"""Termination notices in the formats of the clouds. Parsing only; nothing is done about one here.

Formats: a generic one ({"instance", "at"?, "source"?}), EventBridge's EC2 spot interruption warning
and rebalance recommendation, `spot/instance-action` of the EC2 metadata service, Azure's Scheduled
Events, and Compute Engine's `instance/preempted`.
"""

from __future__ import annotations

import datetime
import email.utils
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EC2_NOTICE_S = 120.0
SHORT_NOTICE_S = 30.0
MAX_UNIX_S = 1e11
"""The year 5138. A larger number is taken for milliseconds and refused."""
MAX_NAME = 256
MAX_SOURCE = 64
EVENT_BRIDGE_SOURCES = {
    "EC2 Spot Instance Interruption Warning": "ec2-spot-notice",
    "EC2 Instance Rebalance Recommendation": "ec2-rebalance",
}
AZURE_TERMINATIONS = ("Preempt", "Terminate")


class BadNotice(Exception):
    """The message is not a notice. The text names the field that is wrong."""


@dataclass(frozen=True)
class Notice:
    """An instance that will be terminated, when (Unix seconds), and who says so."""

    instance: str
    at_s: float
    source: str


def parse_notices(body: object, instance: str, now_s: float) -> list[Notice]:
    """Return the notices in one message; none where it is about something else.

    Args:
        body: the message as JSON gave it.
        instance: the instance that is meant where the format does not say, as a metadata service
            speaks of its own machine.

    Raises:
        BadNotice: the format is unknown, or a field is missing or wrong.
    """
    if not isinstance(body, Mapping):
        raise BadNotice("the message must be a JSON object")
    if "detail-type" in body:
        return [_event_bridge(body, now_s)]
    if "Events" in body:
        return azure_events(body["Events"], instance, now_s)
    if "action" in body and "time" in body:
        at_s = _unix_s(body["time"], "time")
        return [Notice(_name(instance, "instance"), at_s, "ec2-instance-action")]
    if "instance" in body:
        return [_generic(body, now_s)]
    raise BadNotice("instance: is missing, and the message has no other known format")


def _generic(body: Mapping[str, Any], now_s: float) -> Notice:
    at_s = _unix_s(body["at"], "at") if "at" in body else now_s + EC2_NOTICE_S
    source = str(body.get("source", "webhook"))[:MAX_SOURCE]
    return Notice(_name(body["instance"], "instance"), at_s, source)


def _event_bridge(body: Mapping[str, Any], now_s: float) -> Notice:
    kind, detail = body["detail-type"], body.get("detail")
    instance = detail.get("instance-id") if isinstance(detail, Mapping) else None
    name = _name(instance, "detail.instance-id")
    sent_s = _unix_s(body["time"], "time") if "time" in body else now_s
    source = EVENT_BRIDGE_SOURCES.get(str(kind))
    if source is None:
        raise BadNotice(f"detail-type: {kind!r} is no notice")
    return Notice(name, sent_s + EC2_NOTICE_S, source)


def azure_events(events: object, instance: str, now_s: float) -> list[Notice]:
    """Return those of Azure's scheduled events that terminate machines.

    Args:
        instance: the instance that is meant where an event names none.

    Raises:
        BadNotice: `events` is not a list, or an event has a bad name or time.
    """
    if not isinstance(events, list):
        raise BadNotice("Events: must be a list")
    return [
        notice
        for event in events
        if isinstance(event, Mapping) and event.get("EventType") in AZURE_TERMINATIONS
        for notice in _azure_event(event, instance, now_s)
    ]


def _azure_event(event: Mapping[str, Any], instance: str, now_s: float) -> list[Notice]:
    # NotBefore is empty once the event has begun.
    not_before = event.get("NotBefore")
    at_s = _http_date(not_before, "NotBefore") if not_before else now_s + SHORT_NOTICE_S
    names = event.get("Resources") or [instance]
    if not isinstance(names, list):
        raise BadNotice("Resources: must be a list")
    return [Notice(_name(name, "Resources"), at_s, "azure-scheduled-event") for name in names]


def gcp_preempted(text: str, instance: str, now_s: float) -> list[Notice]:
    """Return the notice in an answer of Compute Engine's `instance/preempted`, if it is one.

    Args:
        instance: the machine itself.

    Raises:
        BadNotice: the answer is neither TRUE nor FALSE.
    """
    word = text.strip().upper()
    if word not in ("TRUE", "FALSE"):
        raise BadNotice(f"preempted: must be TRUE or FALSE, got {text[:40]!r}")
    return [Notice(instance, now_s + SHORT_NOTICE_S, "gcp-preempted")] if word == "TRUE" else []


def _name(value: object, field: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME:
        raise BadNotice(f"{field}: must be a name of at most {MAX_NAME} characters")
    return value


def _unix_s(value: object, field: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value < MAX_UNIX_S:
            raise BadNotice(f"{field}: must be Unix seconds (not milliseconds), got {value:g}")
        return float(value)
    try:
        moment = datetime.datetime.fromisoformat(str(value))
    except ValueError:
        raise BadNotice(f"{field}: must be Unix seconds or an ISO 8601 time") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _http_date(value: object, field: str) -> float:
    """Azure sends dates as in RFC 1123; ISO 8601 is accepted as well."""
    try:
        return email.utils.parsedate_to_datetime(str(value)).timestamp()
    except ValueError:
        return _unix_s(value, field)
