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
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

load_all_checks()
DESCRIPTION = schemathesis.openapi.from_url(f"{EDGE}/openapi.json")
DESCRIPTION.config.generation.update(with_security_parameters=False)  # The key is ours.
OTHER_MODELS = {"/v1/embeddings": EMBEDDING_MODEL, "/v1/rerank": LOCAL_ENCODER}
LENGTHS = {"/v1/responses": "max_output_tokens", "/v1/chat/completions": "max_completion_tokens"}
"""The field for the longest answer, which a request that names no model is given: the local chat
model answers it, and may write for a minute.
"""
LEFT_OUT = [positive_data_acceptance, ignored_auth]
"""Rules between fields (a choice among tools needs tools) are no part of the description. The probe
without a key sends the one that it is given here; tests/edge asks every operation without one.
"""
THOROUGHLY = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


def ask(case: Any, model: str) -> None:
    """Send a case, for a model that is there, and check the answer."""
    named = case.body.get("model") if isinstance(case.body, dict) else None
    if named and isinstance(named, str):
        case.body["model"] = OTHER_MODELS.get(case.path, model)
    elif isinstance(case.body, dict) and case.path in LENGTHS:
        case.body.setdefault(LENGTHS[case.path], 16)
    headers = {"authorization": f"Bearer {KEY}"}
    case.call_and_validate(headers=headers, excluded_checks=LEFT_OUT, timeout=60)


@DESCRIPTION.parametrize()
@THOROUGHLY
def test_on_the_wire_of_openai(case: Any) -> None:
    ask(case, OPENAI_MODEL)


@DESCRIPTION.parametrize()
@THOROUGHLY
def test_on_the_wire_of_anthropic(case: Any) -> None:
    ask(case, ANTHROPIC_MODEL)
