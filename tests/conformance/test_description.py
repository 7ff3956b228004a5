"""schemathesis on the edge's own description at `/openapi.json`: whatever is sent, right or wrong,
is answered as described, and never by a failure of ours.
"""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from running_gateway import (
    ANTHROPIC_MODEL,
    EDGE,
    EMBEDDING_MODEL,
    KEY,
    LOCAL_ENCODER,
    OPENAI_MODEL,
)
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import positive_data_acceptance

load_all_checks()
DESCRIPTION = schemathesis.openapi.from_url(f"{EDGE}/openapi.json")
OTHER_MODELS = {"/v1/embeddings": EMBEDDING_MODEL, "/v1/rerank": LOCAL_ENCODER}
NOT_DESCRIBED = [positive_data_acceptance]
"""Rules between fields (a choice among tools needs tools) are no part of the description."""
THOROUGHLY = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


def ask(case: Any, model: str) -> None:
    """Send a case, for a model that is there, and check the answer."""
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = OTHER_MODELS.get(case.path, model)
    headers = {"authorization": f"Bearer {KEY}"}
    case.call_and_validate(headers=headers, excluded_checks=NOT_DESCRIBED, timeout=60)


@DESCRIPTION.parametrize()
@THOROUGHLY
def test_on_the_wire_of_openai(case: Any) -> None:
    ask(case, OPENAI_MODEL)


@DESCRIPTION.parametrize()
@THOROUGHLY
def test_on_the_wire_of_anthropic(case: Any) -> None:
    ask(case, ANTHROPIC_MODEL)
