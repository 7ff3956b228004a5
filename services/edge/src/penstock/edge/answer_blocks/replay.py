"""Reasoning that a caller sends back, put into the turn that it was part of."""

from __future__ import annotations

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.answer_blocks.blocks import ReasoningBlock
from penstock.edge.answer_blocks.extras import EXTRAS, restore_extras
from penstock.service.purity import pure

IN_ORDER = "anthropic."
"""Begins formats whose blocks go back as they came, empty and unsigned ones too."""


@pure
def put_reasoning(message: pb.Message, thought: ReasoningBlock, position: int) -> None:
    """Add a block of reasoning to a turn.

    State that came after the answer's text was shown as a block of its own; it is put back into the
    block that it belongs to. Extras are put where they were, so that the calls must be there.

    Args:
        position: number of the turn's texts and calls that stand before the block.
    """
    if thought.format == EXTRAS:
        restore_extras(message, thought.state)
        return
    if not thought.text and not thought.format.startswith(IN_ORDER):
        for earlier in message.reasoning:
            if earlier.format == thought.format and earlier.text and not earlier.state:
                earlier.state = thought.state
                return
    message.reasoning.add(
        text=thought.text, state=thought.state, format=thought.format, position=position
    )
