"""The gate: does a cached prompt say something that contradicts the new one?

Plain text rules, no embedding.

It fires on a conflict, where each side carries a value that the other lacks, and not on absence.
What similarity cannot see is just this: a number, a name, a direction, a negation (see the trap set
of the benchmark). Every pattern is bounded, so that reading is linear.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

MAX_CHARACTERS = 2_000
"""Longer prompts are not compared at all: they say too much for one sentence's rules."""
GLUED = re.compile(
    r"(?<=\d)(am|pm|k|m|mb|gb|tb|kg|km|cm|mm|g|h|min|s|ms|usd|eur|gbp)\b", re.IGNORECASE
)
IDENTIFIER = re.compile(
    r"https?://\S{1,400}|[\w.+-]{1,64}@[\w-]{1,64}\.[\w.]{1,64}|(?:/[\w.-]{1,64}){2,12}|\b[0-9a-f]{8}-[0-9a-f-]{27}\b|\b0x[0-9a-f]{1,64}\b|"
    r"\b(?=[\w-]{0,40}\d)(?=[\w-]{0,40}[a-z])[a-z0-9]{1,40}(?:[-_][a-z0-9]{1,40}){0,6}\b|#\w{1,40}",
    re.IGNORECASE,
)
NUMBER = re.compile(r"[$€£]?\d[\d,]{0,20}(?:[.:/]\d{1,20}){0,3}\s?(?:%|percent\b)?")
QUOTED = re.compile(
    r"\"([^\"]{1,200})\"|“([^”]{1,200})”|`([^`]{1,200})`|(?<!\w)'([^']{1,200})'(?!\w)"
)
WORD = re.compile(r"[a-z]{1,40}(?:'[a-z]{1,10})?", re.IGNORECASE)
CAPITALISED = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{1,40}|\b[A-Z]{2,20}\b")
TURN = re.compile(r"\b([\w$€£]{1,40}) (?:to|into|in) ([\w$€£]{1,40})\b", re.IGNORECASE)
FROM_TO = re.compile(
    r"\bfrom ([\w$€£]{1,40})(?: \w{1,40}){0,3}? (?:to|into|in) ([\w$€£]{1,40})", re.IGNORECASE
)


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


NUMBER_WORDS = _set(
    "one two three four five six seven eight nine ten eleven twelve twenty thirty forty "
    "fifty hundred thousand million "
    "first second third fourth fifth half twice double triple once"
)
TIMES = _set(
    "today tomorrow yesterday tonight monday tuesday wednesday thursday friday saturday "
    "sunday january february march april june july "
    "august september october november december morning afternoon evening noon midnight "
    "weekend weekly daily monthly yearly annual hourly "
    "spring summer autumn winter am pm"
)
UNITS = _set(
    "celsius fahrenheit kelvin km kilometers kilometres miles meters metres feet inches cm "
    "mm kg kilograms grams pounds ounces lbs liters "
    "litres gallons seconds minutes hours days weeks months years dollars euros usd eur gbp "
    "jpy yen chf aud cad inr bitcoin mb gb tb kb"
)
AUXILIARIES = _set(
    "do does did don't doesn't didn't can can't could couldn't will won't would wouldn't "
    "should shouldn't is isn't are aren't was wasn't "
    "were weren't has hasn't have haven't had hadn't be been must mustn't may might"
)
MAX_OTHER_WORDS = 2
NEGATIONS = _set("not no never without none neither nor cannot nothing")
OPPOSITES = tuple(
    (_set(one), _set(other))
    for one, other in (
        ("enable activate unlock unblock unfreeze", "disable deactivate lock block freeze"),
        ("increase raise higher grow", "decrease lower reduce shrink"),
        ("before earlier", "after later"),
        ("include including", "exclude excluding except without"),
        ("open", "close closed shut"),
        ("start begin resume", "stop end pause cancel"),
        ("add insert append", "remove delete subtract drop"),
        ("buy purchase", "sell"),
        ("incoming inbound receive received receiving", "outgoing outbound send sent sending"),
        ("minimum min least smallest lowest cheapest", "maximum max most largest highest"),
        ("allow permit grant", "deny forbid revoke refuse"),
        ("import download", "export upload"),
        ("encrypt", "decrypt"),
        ("ascending", "descending"),
        ("login", "logout"),
        ("arrive arrival arriving", "depart departure departing leave leaving"),
        ("deposit", "withdraw withdrawal"),
        ("win gain profit", "lose loss"),
        ("newest latest", "oldest earliest"),
        ("accept approve", "reject decline"),
        ("subscribe", "unsubscribe"),
        ("always", "never"),
        ("public", "private"),
        ("mute", "unmute"),
        ("follow", "unfollow"),
        ("upgrade", "downgrade"),
        ("inside internal", "outside external"),
        ("north", "south"),
        ("east", "west"),
        ("credit", "debit"),
        ("physical", "virtual"),
        ("true", "false"),
        ("warmer hotter", "colder cooler"),
        ("parent", "child"),
        ("synchronous", "asynchronous"),
        ("read", "write"),
        ("push", "pull"),
        ("input", "output"),
        ("client", "server"),
        ("borrow", "lend"),
        ("above over", "below under"),
        ("positive", "negative"),
    )
)
"""Words that turn a prompt round. Pairs whose members have other common senses (left, right, on,
off, up, down) are left out on purpose.
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a prompt says that must not be contradicted."""

    numbers: frozenset[str]
    identifiers: frozenset[str]
    quoted: frozenset[str]
    times: frozenset[str]
    units: frozenset[str]
    names: frozenset[str]
    words: frozenset[str]
    negations: int
    directions: frozenset[tuple[str, str]]
    turns: frozenset[tuple[str, str]]


@lru_cache(maxsize=8_192)
def facts(text: str) -> Facts:
    """Read a prompt's facts."""
    text = GLUED.sub(r" \1", text)
    quoted = frozenset(
        _plain(next(part for part in found if part)) for found in QUOTED.findall(text)
    )
    identifiers = frozenset(
        found.lower() for found in IDENTIFIER.findall(text) if not found.isalpha()
    )
    rest = IDENTIFIER.sub(" ", text)
    words = [word.lower() for word in WORD.findall(text)]
    known = frozenset(words)
    numbers = frozenset(re.sub(r"[\s,]", "", found) for found in NUMBER.findall(rest)) | (
        known & NUMBER_WORDS
    )
    return Facts(
        numbers,
        identifiers,
        quoted,
        known & TIMES,
        known & UNITS,
        frozenset(found.lower() for found in CAPITALISED.findall(text)) - TIMES - {"i"},
        known,
        sum(word in NEGATIONS or word.endswith("n't") for word in words) % 2,
        frozenset((a.lower(), b.lower()) for a, b in FROM_TO.findall(text)),
        frozenset((a.lower(), b.lower()) for a, b in TURN.findall(text)),
    )


def contradiction(new: str, cached: str) -> str:
    """The first contradiction between two prompts, as a reason for the receipt; empty for none."""
    if new == cached:
        return ""
    a, b = facts(new), facts(cached)
    return next((name for name, clash in CHECKS if clash(a, b)), "")


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _both(a: frozenset[str], b: frozenset[str]) -> bool:
    return bool(a - b) and bool(b - a)


def _direction(a: Facts, b: Facts) -> bool:
    return any((right, left) in b.turns | b.directions for left, right in a.turns | a.directions)


def _opposites(a: Facts, b: Facts) -> bool:
    return any(
        (a.words & one and not a.words & other and b.words & other and not b.words & one)
        or (a.words & other and not a.words & one and b.words & one and not b.words & other)
        for one, other in OPPOSITES
    )


def _negated(a: Facts, b: Facts) -> bool:
    """One denies what the other says: their words are otherwise nearly the same.

    In longer rewordings a negation alone says little.
    """
    if a.negations == b.negations:
        return False
    return len((a.words ^ b.words) - NEGATIONS - AUXILIARIES) <= MAX_OTHER_WORDS


def _order(a: Facts, b: Facts) -> bool:
    """Direction given by different ends: from here to there against from here to elsewhere."""
    return bool(
        a.directions and b.directions and not a.directions & b.directions and _ends(a) & _ends(b)
    )


def _ends(facts_: Facts) -> frozenset[str]:
    return frozenset(end for pair in facts_.directions for end in pair)


Check = Callable[[Facts, Facts], bool]
CHECKS: tuple[tuple[str, Check], ...] = (
    ("number differs", lambda a, b: _both(a.numbers, b.numbers)),
    ("identifier differs", lambda a, b: _both(a.identifiers, b.identifiers)),
    ("quoted text differs", lambda a, b: _both(a.quoted, b.quoted)),
    ("time differs", lambda a, b: _both(a.times, b.times)),
    ("unit differs", lambda a, b: _both(a.units, b.units)),
    ("direction is reversed", _direction),
    ("direction differs", _order),
    ("opposite word", _opposites),
    ("negation differs", _negated),
    ("name differs", lambda a, b: _both(a.names, b.names)),
)


def tokens(text: str) -> list[str]:
    """Words and pairs of neighbouring words, for the word model."""
    words = [word.lower() for word in WORD.findall(text)]
    return words + [f"{one} {two}" for one, two in pairwise(words)]
