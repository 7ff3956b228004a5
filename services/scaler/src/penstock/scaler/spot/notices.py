"""Termination notices in the shapes that clouds send them.

Parsing only: what is done about one is decided elsewhere.
"""

from __future__ import annotations

import datetime
import email.utils
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EC2_NOTICE_S = 120.0
SHORT_NOTICE_S = 30.0
MOST_S = 1e11
"""Unix seconds of the year 5138: whoever writes more means milliseconds."""


class BadNotice(Exception):
    """The message is not a notice; the text names the field."""


@dataclass(frozen=True)
class Notice:
    """An instance that will go, when (Unix seconds), and who says so."""

    instance: str
    at_s: float
    source: str


def parse(body: object, instance: str, now_s: float) -> list[Notice]:
    """Notices in one message; none for news that takes nothing away.

    Knows the generic shape ({"instance", "at"?, "source"?}), EventBridge's EC2 spot interruption
    warning and rebalance recommendation, the EC2 metadata service's `spot/instance-action`, and
    Azure's Scheduled Events.

    Args:
        instance: who it is about where the shape does not say (a metadata service speaks of its own
            machine).

    Raises:
        BadNotice: it is none of these, or says of nobody.
    """
    if not isinstance(body, Mapping):
        raise BadNotice("the message must be a JSON object")
    if "detail-type" in body:
        return [_event_bridge(body, now_s)]
    if "Events" in body:
        return azure_events(body["Events"], instance, now_s)
    if "action" in body and "time" in body:
        return [
            Notice(
                _named(instance, "instance"), _unix_s(body["time"], "time"), "ec2-instance-action"
            )
        ]
    if "instance" in body:
        at_s = _unix_s(body["at"], "at") if "at" in body else now_s + EC2_NOTICE_S
        return [
            Notice(
                _named(body["instance"], "instance"), at_s, str(body.get("source", "webhook"))[:64]
            )
        ]
    raise BadNotice("instance: is missing, and the message has no shape that is known")


def _event_bridge(body: Mapping[str, Any], now_s: float) -> Notice:
    kind, detail = body["detail-type"], body.get("detail")
    name = _named(
        detail.get("instance-id") if isinstance(detail, Mapping) else None, "detail.instance-id"
    )
    sent_s = _unix_s(body["time"], "time") if "time" in body else now_s
    if kind == "EC2 Spot Instance Interruption Warning":
        return Notice(name, sent_s + EC2_NOTICE_S, "ec2-spot-notice")
    if kind == "EC2 Instance Rebalance Recommendation":
        return Notice(name, sent_s + EC2_NOTICE_S, "ec2-rebalance")
    raise BadNotice(f"detail-type: {kind!r} is no notice")


def azure_events(events: object, instance: str, now_s: float) -> list[Notice]:
    """Those of Azure's scheduled events that take machines away; `instance` stands in where an
    event names none.

    Raises:
        BadNotice: `events` is no list, or an event names or times what cannot be.
    """
    if not isinstance(events, list):
        raise BadNotice("Events: must be a list")
    found = []
    for event in events:
        if not isinstance(event, Mapping) or event.get("EventType") not in ("Preempt", "Terminate"):
            continue
        before = event.get("NotBefore")  # empty once it has begun
        at_s = _http_date(before, "NotBefore") if before else now_s + SHORT_NOTICE_S
        names = event.get("Resources") or [instance]
        if not isinstance(names, list):
            raise BadNotice("Resources: must be a list")
        found += [
            Notice(_named(name, "Resources"), at_s, "azure-scheduled-event") for name in names
        ]
    return found


def gcp_preempted(said: str, instance: str, now_s: float) -> list[Notice]:
    """What Compute Engine's `instance/preempted` says of its own machine.

    Raises:
        BadNotice: it is neither TRUE nor FALSE.
    """
    word = said.strip().upper()
    if word not in ("TRUE", "FALSE"):
        raise BadNotice(f"preempted: must be TRUE or FALSE, got {said[:40]!r}")
    return [Notice(instance, now_s + SHORT_NOTICE_S, "gcp-preempted")] if word == "TRUE" else []


def _named(value: object, field: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise BadNotice(f"{field}: must be a name of at most 256 characters")
    return value


def _unix_s(value: object, field: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value < MOST_S:
            raise BadNotice(f"{field}: must be Unix seconds (not milliseconds), got {value:g}")
        return float(value)
    try:
        moment = datetime.datetime.fromisoformat(str(value))
    except ValueError:
        raise BadNotice(f"{field}: must be Unix seconds or an ISO 8601 time") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _http_date(value: object, field: str) -> float:
    """Azure writes the dates of RFC 1123; ISO 8601 is taken as well."""
    try:
        return email.utils.parsedate_to_datetime(str(value)).timestamp()
    except ValueError:
        return _unix_s(value, field)
