"""A provider's words, made fit to be told to a caller.

A message may quote the operator's key, the organisation's name at the provider, addresses of its
machines. What looks like one of these is left out, and little of the rest is told.
"""

from __future__ import annotations

import re

from penstock.service.purity import pure

MAX_TEXT = 240
"""Characters of a message that are told."""
HIDDEN = "…"
SECRETS = re.compile(
    r"(?i:bearer|basic)\s+\S+"  # credentials of a header
    r"|\b(?:sk|pk|rk|gsk|xai|key|org|proj|acct|user|team|req)[-_][\w-]{4,}[\w*.…-]*"
    r"|\bAIza[\w-]{10,}|\bAKIA\w{8,}|\beyJ[\w.-]{10,}"  # Google, AWS, signed tokens
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"  # addresses of people
    r"|\bhttps?://\S+"
    r"|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"  # addresses of machines
    r"|\b[0-9a-fA-F]{8}-[0-9a-fA-F-]{20,}\b"  # identifiers
    r"|\b(?=\w*\d)(?=\w*[a-zA-Z])[\w+/=]{24,}"  # anything else that is long and random
)
WORD = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


@pure
def clean_text(text: str) -> str:
    """The first line of a message, without what looks like a secret, and cut to a length."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    line = "".join(each if each.isprintable() else " " for each in line[: 4 * MAX_TEXT])
    line = SECRETS.sub(HIDDEN, line).strip()
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1].rstrip() + HIDDEN


@pure
def clean_word(word: str) -> str:
    """A code, as it is; empty where it is none, such as a sentence or a secret."""
    is_code = WORD.fullmatch(word) is not None and SECRETS.search(word) is None
    return word if is_code else ""
