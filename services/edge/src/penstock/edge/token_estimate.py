"""How many tokens a request's input has, as an estimate: which tokeniser will read it is not known
before it is routed. Pure.
"""

from __future__ import annotations

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.service.purity import pure
from penstock.tasks.kinds import GENERATE


@pure
def estimated_tokens(task: pb.GenerateTask) -> int:
    """Input tokens of a task, from the script of its texts."""
    return GENERATE.estimate(pb.Task(generate=task)).input_tokens
