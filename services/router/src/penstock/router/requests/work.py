"""How large a call is, estimated before anything is done. A value only."""

from __future__ import annotations

from typing import NamedTuple


class Work(NamedTuple):
    """What a call asks for, estimated before anything is done: enough to price it and to place
    it.
    """

    kind: str
    """`embed`, `classify`, `generate` or `infer`."""
    model: str
    rows: int
    input_tokens: int
    output_tokens: int
    """Largest number of output tokens that the call may cause; 0 for tasks without any."""
    input_bound: int = 0
    """Tokens that the input cannot exceed, whatever the tokenizer: its bytes and what surrounds
    each message.
    """
