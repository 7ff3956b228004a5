"""Pairs of prompts that look alike but need different answers, and pairs with the same answer.

They are generated from templates. A trap changes one thing that matters (a number, a name, a day, a
city, a currency, a direction, an identifier, an opposite, a negation, a quoted text); a paraphrase
changes only the wording. Half of the templates are held out: nothing was tuned on them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

NAMES = ("Anna", "Boris", "Carla", "Deniz", "Emil", "Farah", "Goran", "Hana")
CITIES = ("Oslo", "Rome", "Bern", "Lima", "Cairo", "Quito", "Riga", "Hanoi")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday")
CURRENCIES = ("dollars", "euros", "pounds", "yen")
TEMPLATES: dict[str, tuple[str, ...]] = {
    "number": (
        "set a timer for {n} minutes",
        "transfer {n} dollars to my savings",
        "order {n} boxes of paper",
        "what is {n} percent of the total",
        "show the last {n} invoices",
        "book a table for {n} people",
    ),
    "name": (
        "what is the phone number of {name}",
        "send the report to {name}",
        "when does {name} come back",
        "which projects does {name} lead",
        "add {name} to the meeting",
        "is {name} on leave",
    ),
    "city": (
        "what is the weather in {city}",
        "book a hotel in {city}",
        "how many people live in {city}",
        "show flights to {city}",
        "what time is it in {city}",
        "find a dentist in {city}",
    ),
    "day": (
        "what is on my calendar on {day}",
        "wake me early on {day}",
        "cancel my lesson on {day}",
        "is the office open on {day}",
        "move the call to {day}",
        "remind me on {day}",
    ),
    "currency": (
        "what is the price in {currency}",
        "convert the bill to {currency}",
        "pay the invoice in {currency}",
        "show my balance in {currency}",
        "how much is that in {currency}",
        "quote the offer in {currency}",
    ),
    "identifier": (
        "where is order A-{n}",
        "close ticket T-{n}",
        "show the log of job j{n}x",
        "what failed in build b{n}-main",
        "reopen issue #{n}",
        "print label L{n}B",
    ),
    "direction": (
        "fly from {a} to {b}",
        "how long is the drive from {a} to {b}",
        "move the files from {a} to {b}",
        "translate from {a} to {b}",
        "copy the table from {a} to {b}",
        "what does a call from {a} to {b} cost",
    ),
    "quoted": (
        'delete the file "{q}"',
        'search for "{q}"',
        'what does "{q}" mean',
        'rename it to "{q}"',
        'open the note "{q}"',
        'play the song "{q}"',
    ),
}
OPPOSITES = (
    ("enable the alarm at home", "disable the alarm at home"),
    ("increase the volume of the speaker", "decrease the volume of the speaker"),
    ("lock the front door", "unlock the front door"),
    ("show the cheapest offer", "show the dearest offer"),
    ("add milk to the list", "remove milk from the list"),
    ("buy ten shares of the fund", "sell ten shares of the fund"),
    ("start the washing machine", "stop the washing machine"),
    ("open the blinds in the kitchen", "close the blinds in the kitchen"),
    ("accept the invitation of the club", "decline the invitation of the club"),
    ("upload the photos of the trip", "download the photos of the trip"),
    ("subscribe me to the letter", "unsubscribe me from the letter"),
    ("how do I deposit money here", "how do I withdraw money here"),
)
NEGATED = (
    ("can I use my card abroad", "can I not use my card abroad"),
    ("which plants need sun", "which plants do not need sun"),
    ("I was charged twice", "I was not charged twice"),
    ("is the shop open today", "is the shop not open today"),
    ("show meals with nuts", "show meals without nuts"),
    ("the app is working", "the app is not working"),
    ("dogs are allowed here", "dogs are not allowed here"),
    ("we have received the goods", "we have not received the goods"),
    ("he can swim", "he cannot swim"),
    ("always ask me first", "never ask me first"),
)
QUOTES = (
    "alpha plan",
    "blue river",
    "old notes",
    "draft nine",
    "green tea",
    "last song",
    "north wall",
    "paper boat",
)
PARAPHRASES: tuple[Callable[[str], str], ...] = (
    lambda text: f"please {text}",
    lambda text: f"{text} please",
    lambda text: f"hey, {text}",
    lambda text: f"{text}, thank you",
    lambda text: f"could you {text}",
    lambda text: f"{text}?",
    lambda text: text.upper()[:1] + text[1:] + ".",
    lambda text: f"hi, can you tell me: {text}",
    lambda text: f"ok {text} now",
    lambda text: f"I would like to ask you: {text}",
)


VALUES = {"name": NAMES, "city": CITIES, "day": DAYS, "currency": CURRENCIES, "quoted": QUOTES}
TRAPS_PER_TEMPLATE, PARAPHRASES_PER_TEMPLATE = 8, 6


@dataclass(frozen=True)
class Pair:
    """A cached prompt and a new one.

    Attributes:
        kind: what the two differ in.
        cached: the prompt whose answer is cached.
        new: the prompt that is asked.
        same: whether the cached answer is right for it.
        held_out: whether its template is held out.
        template: what it was made from.
    """

    kind: str
    cached: str
    new: str
    same: bool
    held_out: bool
    template: str


def generated_pairs(seed: int = 11) -> list[Pair]:
    """All pairs; at least 600, half of them held out."""
    rng = random.Random(seed)
    return [*_traps(rng), *_paraphrases(rng)]


def _traps(rng: random.Random) -> Iterator[Pair]:
    for kind, templates in TEMPLATES.items():
        for index, template in enumerate(templates):
            for _ in range(TRAPS_PER_TEMPLATE):
                cached, new = _filled(kind, template, rng)
                yield Pair(kind, cached, new, False, _is_held_out(index), template)
    for kind, fixed in (("opposite", OPPOSITES), ("negation", NEGATED)):
        for index, (one, other) in enumerate(fixed):
            yield Pair(kind, one, other, False, _is_held_out(index), one)
            yield Pair(kind, other, one, False, _is_held_out(index), one)


def _paraphrases(rng: random.Random) -> Iterator[Pair]:
    for kind, templates in TEMPLATES.items():
        for index, template in enumerate(templates):
            for _ in range(PARAPHRASES_PER_TEMPLATE):
                cached, _ = _filled(kind, template, rng)
                new = rng.choice(PARAPHRASES)(cached)
                yield Pair("same", cached, new, True, _is_held_out(index), template)


def _is_held_out(index: int) -> bool:
    return index % 2 == 1


def _filled(kind: str, template: str, rng: random.Random) -> tuple[str, str]:
    """The template with two different values."""
    if kind == "direction":
        a, b = rng.sample(CITIES, 2)
        return template.format(a=a, b=b), template.format(a=b, b=a)
    if kind in ("number", "identifier"):
        first, second = rng.sample(range(12, 990), 2)
        return template.format(n=first), template.format(n=second)
    one, other = rng.sample(VALUES[kind], 2)
    field = "q" if kind == "quoted" else kind
    return template.format(**{field: one}), template.format(**{field: other})
