"""The gate: does a cached prompt contradict the new one?

Embeddings of prompts that differ in a number, a name, a direction or a negation only are nearly
equal, although the answers differ (see the pairs in the benchmark `semantic_cache`). So these
details are compared as text, without an embedding.

The gate fires where each prompt has a detail that the other lacks, not where only one of them has
it: "transfer 50" contradicts "transfer 500", and does not contradict "make a transfer". Every
regular expression has bounded repetitions, so that the time to read a prompt is linear in its
length.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from penstock.service.purity import pure

MAX_CHARACTERS = 2_000
"""Longer prompts are not compared: these rules are made for a sentence or two."""
NUMBER_WITH_UNIT = re.compile(
    r"(?<=\d)(am|pm|k|m|mb|gb|tb|kg|km|cm|mm|g|h|min|s|ms|usd|eur|gbp)\b", re.IGNORECASE
)
IDENTIFIER = re.compile(
    r"https?://\S{1,400}"  # a URL
    r"|[\w.+-]{1,64}@[\w-]{1,64}\.[\w.]{1,64}"  # an e-mail address
    r"|(?:/[\w.-]{1,64}){2,12}"  # a path
    r"|\b[0-9a-f]{8}-[0-9a-f-]{27}\b"  # a UUID
    r"|\b0x[0-9a-f]{1,64}\b"  # a hexadecimal number
    # a name of letters and digits, such as A-1023
    r"|\b(?=[\w-]{0,40}\d)(?=[\w-]{0,40}[a-z])[a-z0-9]{1,40}(?:[-_][a-z0-9]{1,40}){0,6}\b"
    r"|#\w{1,40}",  # a hashtag or ticket number
    re.IGNORECASE,
)
NUMBER = re.compile(r"[$€£]?\d[\d,]{0,20}(?:[.:/]\d{1,20}){0,3}\s?(?:%|percent\b)?")
QUOTED = re.compile(
    r"\"([^\"]{1,200})\"|“([^”]{1,200})”|`([^`]{1,200})`|(?<!\w)'([^']{1,200})'(?!\w)"
)
WORD = re.compile(r"[a-z]{1,40}(?:'[a-z]{1,10})?", re.IGNORECASE)
CAPITALISED = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{1,40}|\b[A-Z]{2,20}\b")
CONVERSION = re.compile(r"\b([\w$€£]{1,40}) (?:to|into|in) ([\w$€£]{1,40})\b", re.IGNORECASE)
DIRECTION = re.compile(
    r"\bfrom ([\w$€£]{1,40})(?: \w{1,40}){0,3}? (?:to|into|in) ([\w$€£]{1,40})", re.IGNORECASE
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NUMBER_WORDS = _words(
    "one two three four five six seven eight nine ten eleven twelve twenty thirty forty "
    "fifty hundred thousand million "
    "first second third fourth fifth half twice double triple once"
)
TIMES = _words(
    "today tomorrow yesterday tonight monday tuesday wednesday thursday friday saturday "
    "sunday january february march april june july "
    "august september october november december morning afternoon evening noon midnight "
    "weekend weekly daily monthly yearly annual hourly "
    "spring summer autumn winter am pm"
)
UNITS = _words(
    "celsius fahrenheit kelvin km kilometers kilometres miles meters metres feet inches cm "
    "mm kg kilograms grams pounds ounces lbs liters "
    "litres gallons seconds minutes hours days weeks months years dollars euros usd eur gbp "
    "jpy yen chf aud cad inr bitcoin mb gb tb kb"
)
AUXILIARIES = _words(
    "do does did don't doesn't didn't can can't could couldn't will won't would wouldn't "
    "should shouldn't is isn't are aren't was wasn't "
    "were weren't has hasn't have haven't had hadn't be been must mustn't may might"
)
MAX_OTHER_WORDS = 2
"""Other words, beside negations and auxiliaries, in which two prompts may differ for a negation to
contradict.
"""
NEGATIONS = _words("not no never without none neither nor cannot nothing")
OPPOSITES = tuple(
    (_words(one), _words(other))
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
"""Groups of words with opposite meanings. Words that also have other common meanings (left, right,
on, off, up, down) are left out on purpose.
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """The details of a prompt that another one may contradict, all in lower case.

    `negations` is their number modulo 2. `directions` are the ends of "from x to y", `conversions`
    those of "x to y".
    """

    numbers: frozenset[str]
    identifiers: frozenset[str]
    quoted: frozenset[str]
    times: frozenset[str]
    units: frozenset[str]
    names: frozenset[str]
    words: frozenset[str]
    negations: int
    directions: frozenset[tuple[str, str]]
    conversions: frozenset[tuple[str, str]]


@lru_cache(maxsize=8_192)
def facts_of(text: str) -> Facts:
    """The details of a prompt."""
    text = NUMBER_WITH_UNIT.sub(r" \1", text)
    without_identifiers = IDENTIFIER.sub(" ", text)
    words = [word.lower() for word in WORD.findall(text)]
    known = frozenset(words)
    names = frozenset(found.lower() for found in CAPITALISED.findall(text))
    return Facts(
        numbers=_numbers(without_identifiers) | (known & NUMBER_WORDS),
        identifiers=frozenset(
            found.lower() for found in IDENTIFIER.findall(text) if not found.isalpha()
        ),
        quoted=_quoted(text),
        times=known & TIMES,
        units=known & UNITS,
        names=names - TIMES - {"i"},
        words=known,
        negations=sum(word in NEGATIONS or word.endswith("n't") for word in words) % 2,
        directions=_pairs(DIRECTION, text),
        conversions=_pairs(CONVERSION, text),
    )


@pure
def contradiction(new: str, cached: str) -> str:
    """The kind of the first contradiction between two prompts, in words; empty for none."""
    if new == cached:
        return ""
    new_facts = facts_of(new)
    cached_facts = facts_of(cached)
    return next((kind for kind, check in CHECKS if check(new_facts, cached_facts)), "")


def _numbers(text: str) -> frozenset[str]:
    return frozenset(re.sub(r"[\s,]", "", found) for found in NUMBER.findall(text))


def _quoted(text: str) -> frozenset[str]:
    """Quoted texts in lower case, with single spaces."""
    texts = (next(part for part in groups if part) for groups in QUOTED.findall(text))
    return frozenset(" ".join(found.lower().split()) for found in texts)


def _pairs(pattern: re.Pattern[str], text: str) -> frozenset[tuple[str, str]]:
    return frozenset((first.lower(), second.lower()) for first, second in pattern.findall(text))


def _both_differ(a: frozenset[str], b: frozenset[str]) -> bool:
    """Whether each has something that the other lacks."""
    return bool(a - b) and bool(b - a)


def _is_reversed(a: Facts, b: Facts) -> bool:
    """One goes from x to y, the other from y to x."""
    pairs = b.conversions | b.directions
    return any((last, first) in pairs for first, last in a.conversions | a.directions)


def _has_other_end(a: Facts, b: Facts) -> bool:
    """One goes from x to y, the other from x to z."""
    if not a.directions or not b.directions or a.directions & b.directions:
        return False
    return bool(_ends(a) & _ends(b))


def _ends(facts: Facts) -> frozenset[str]:
    return frozenset(end for pair in facts.directions for end in pair)


def _has_opposite_word(a: Facts, b: Facts) -> bool:
    """One has only words of one group, the other only words of the opposite group."""
    return any(
        (_has_only(a, one, other) and _has_only(b, other, one))
        or (_has_only(a, other, one) and _has_only(b, one, other))
        for one, other in OPPOSITES
    )


def _has_only(facts: Facts, group: frozenset[str], opposite: frozenset[str]) -> bool:
    return bool(facts.words & group) and not facts.words & opposite


def _is_negated(a: Facts, b: Facts) -> bool:
    """One denies what the other says, and their words are otherwise nearly the same.

    Between longer rewordings a negation alone does not show a contradiction.
    """
    if a.negations == b.negations:
        return False
    return len((a.words ^ b.words) - NEGATIONS - AUXILIARIES) <= MAX_OTHER_WORDS


Check = Callable[[Facts, Facts], bool]
CHECKS: tuple[tuple[str, Check], ...] = (
    ("number differs", lambda a, b: _both_differ(a.numbers, b.numbers)),
    ("identifier differs", lambda a, b: _both_differ(a.identifiers, b.identifiers)),
    ("quoted text differs", lambda a, b: _both_differ(a.quoted, b.quoted)),
    ("time differs", lambda a, b: _both_differ(a.times, b.times)),
    ("unit differs", lambda a, b: _both_differ(a.units, b.units)),
    ("direction is reversed", _is_reversed),
    ("direction differs", _has_other_end),
    ("opposite word", _has_opposite_word),
    ("negation differs", _is_negated),
    ("name differs", lambda a, b: _both_differ(a.names, b.names)),
)
"""Kinds of contradiction, as receipts and statistics name them, in the order in which they are
checked.
"""


def tokens(text: str) -> list[str]:
    """The words and pairs of adjacent words of a text in lower case, for the word model."""
    words = [word.lower() for word in WORD.findall(text)]
    return words + [f"{first} {second}" for first, second in pairwise(words)]
