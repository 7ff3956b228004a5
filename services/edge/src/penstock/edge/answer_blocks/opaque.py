"""Reasoning of another wire as an opaque text that clients keep and send back: in the signature of
a thinking block, in the encrypted content of a reasoning item.
"""

from __future__ import annotations

import base64
import binascii

from google.protobuf.message import DecodeError
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.answer_blocks.blocks import ReasoningBlock
from penstock.service.purity import pure

MARK = "penstock.1."
"""Begins the text; the rest is a contract's Reasoning, serialised, as URL-safe base64."""


@pure
def packed(block: ReasoningBlock, *, with_text: bool = False) -> str:
    """The block as a text.

    Args:
        with_text: whether the readable reasoning is in it too, for wires that do not bring it back
            as it was.
    """
    text = block.text if with_text else ""
    kept = pb.Reasoning(text=text, state=block.state, format=block.format)
    return MARK + base64.urlsafe_b64encode(kept.SerializeToString()).decode()


@pure
def unpacked(text: str) -> ReasoningBlock | None:
    """The block that a text was made of; None where it is not of ours."""
    if not text.startswith(MARK):
        return None
    try:
        data = base64.urlsafe_b64decode(text.removeprefix(MARK))
        kept = pb.Reasoning.FromString(data)
    except (binascii.Error, DecodeError, ValueError):
        return None
    return ReasoningBlock(kept.text, kept.state, kept.format)
