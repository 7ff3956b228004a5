"""Whether alerts may be sent to an address."""

from __future__ import annotations

from urllib.parse import urlsplit


def webhook_problem(url: str, secret: str, allowed_hosts: tuple[str, ...]) -> str:
    """What is wrong with a webhook as configured; empty when nothing is."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "must be an http or https address"
    if parts.username or parts.password:
        return "must not hold a user or password"
    if parts.hostname not in allowed_hosts:
        return f"{parts.hostname} is not in PENSTOCK_ALERT_WEBHOOK_HOSTS"
    return "" if secret else "needs PENSTOCK_ALERT_WEBHOOK_SECRET to sign with"
