"""Sample texts to calibrate with and to compare by, where the user brings none: short and long ones
of many subjects.
"""

from __future__ import annotations

from itertools import product

_SUBJECTS = (
    "the invoice of March",
    "a broken coffee grinder",
    "the flight from Oslo to Lisbon",
    "our retry policy for failed payments",
    "the patient's blood pressure",
    "a lease that ends in autumn",
    "the memory use of the search service",
    "an essay on tidal power",
)
_FRAMES = (
    "{}",
    "What do we know about {}?",
    "Please cancel {} and tell me what it costs.",
    (
        "Summarise the discussion of {} in two sentences, name the open questions, and say who "
        "should answer each of them by Friday."
    ),
    "{} is not what the customer asked for.",
    "Compare {} with last year's and list three differences.",
    "def handler(event): return load({!r}, timeout=30)  # raises KeyError when it is missing",
    (
        "The report says that {} was checked twice, on 3 May and on 17 June, by two people "
        "who did not know of each other; both found "
        "the same fault, wrote it down, and sent it to the wrong address, which is why "
        "nothing was done before the summer."
    ),
)

SAMPLE_TEXTS: tuple[str, ...] = tuple(
    frame.format(subject) for frame, subject in product(_FRAMES, _SUBJECTS)
)
"""64 texts of 4 to 60 words."""
