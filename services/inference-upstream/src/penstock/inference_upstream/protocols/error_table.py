"""Which reason a provider's error has: by its code, else by its words, else by its status.

Codes come first since they are meant for programs. Words are next, because a provider that gives a
long prompt and a misspelt field the same code says the difference only there; each expression below
names whose words it knows. The status is last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from penstock.inference_upstream.protocols.error_details import ErrorDetails
from penstock.rpc.reasons import Reason
from penstock.service.purity import pure

NO_STATUS = 0
"""The status of an error inside an answer, whose own status was 200."""

CODES: Mapping[str, Reason] = {
    # The caller's fault.
    "context_length_exceeded": Reason.UPSTREAM_TOO_LONG,
    "exceed_context_size_error": Reason.UPSTREAM_TOO_LONG,  # llama.cpp
    "string_above_max_length": Reason.UPSTREAM_TOO_LONG,
    "request_too_large": Reason.UPSTREAM_TOO_LONG,  # Anthropic
    "model_max_prompt_tokens_exceeded": Reason.UPSTREAM_TOO_LONG,  # GitHub Models
    "tokens_limit_reached": Reason.UPSTREAM_TOO_LONG,  # Azure AI
    "content_filter": Reason.UPSTREAM_FILTERED,  # Azure
    "content_policy_violation": Reason.UPSTREAM_FILTERED,
    "responsibleaipolicyviolation": Reason.UPSTREAM_FILTERED,  # Azure
    "data_inspection_failed": Reason.UPSTREAM_FILTERED,  # Alibaba
    "datainspectionfailed": Reason.UPSTREAM_FILTERED,
    "cyber_policy": Reason.UPSTREAM_FILTERED,
    # The operator's fault.
    "invalid_api_key": Reason.UPSTREAM_CREDENTIALS,
    "api_key_invalid": Reason.UPSTREAM_CREDENTIALS,  # Google
    "authentication_error": Reason.UPSTREAM_CREDENTIALS,
    "account_deactivated": Reason.UPSTREAM_CREDENTIALS,
    "permission_error": Reason.UPSTREAM_CREDENTIALS,
    "insufficient_quota": Reason.UPSTREAM_BALANCE,
    "billing_error": Reason.UPSTREAM_BALANCE,  # Anthropic
    "billing_hard_limit_reached": Reason.UPSTREAM_BALANCE,
    "billing_not_active": Reason.UPSTREAM_BALANCE,
    "insufficient_balance": Reason.UPSTREAM_BALANCE,  # DeepSeek
    "arrearage": Reason.UPSTREAM_BALANCE,  # Alibaba
    "exceeded_current_quota_error": Reason.UPSTREAM_BALANCE,  # Moonshot
    "model_not_found": Reason.UPSTREAM_NO_MODEL,
    "deploymentnotfound": Reason.UPSTREAM_NO_MODEL,  # Azure
    "not_found_error": Reason.UPSTREAM_NO_MODEL,
    # Load, and errors of its own.
    "rate_limit_error": Reason.UPSTREAM_RATE_LIMITED,
    "rate_limit_exceeded": Reason.UPSTREAM_RATE_LIMITED,
    "rate_limit_reached_error": Reason.UPSTREAM_RATE_LIMITED,
    "too_many_requests": Reason.UPSTREAM_RATE_LIMITED,
    "resource_exhausted": Reason.UPSTREAM_RATE_LIMITED,  # Google
    "overloaded_error": Reason.UPSTREAM_OVERLOADED,  # Anthropic
    "engine_overloaded_error": Reason.UPSTREAM_OVERLOADED,  # Moonshot
    "server_overloaded": Reason.UPSTREAM_OVERLOADED,
    "slow_down": Reason.UPSTREAM_OVERLOADED,
    "unavailable": Reason.UPSTREAM_OVERLOADED,  # Google
    "server_error": Reason.UPSTREAM_ERROR,
    "internal_server_error": Reason.UPSTREAM_ERROR,
    "internal_error": Reason.UPSTREAM_ERROR,
    "api_error": Reason.UPSTREAM_ERROR,  # Anthropic
    "timeout_error": Reason.UPSTREAM_ERROR,  # Anthropic
    "internal": Reason.UPSTREAM_ERROR,  # Google
}
"""Reasons by codes, types and statuses, all in lower case."""

# OpenAI, vLLM, SGLang, TGI, llama.cpp, Anthropic, Google, Mistral, Bedrock, Cohere
TOO_LONG = (
    r"context (length|window|size)",
    r"maximum context",
    r"(prompt|input) is too long",
    r"too many (input )?tokens",
    r"input length",
    r"reduce the length",
    r"token count .* exceeds",
    r"longer than the (model|maximum|context)",
    r"exceeds? the (model'?s )?max(imum)? (context|input|prompt|sequence|number of .*tokens)",
    r"inputs? tokens .* must be",
)
# OpenAI, Anthropic ("credit balance is too low" has the code of a bad request), DeepSeek
BALANCE = (
    r"credit balance",
    r"insufficient (balance|credit|fund|quota)",
    r"exceeded your current quota",
    r"requires more credits",
    r"payment required",
)
# Google, which gives a bad key the code of a bad request
CREDENTIALS = (r"api key (not valid|expired|invalid)", r"invalid api key")
# Azure, OpenAI, Google, Anthropic
FILTERED = (
    r"content (management|filter|usage|safety)",
    r"filtered due to",
    r"prompt was blocked",
    r"flagged (as|by|for)",
    r"usage polic(y|ies)",
)
# OpenAI, Ollama, vLLM, Groq
NO_MODEL = (
    r"model [`'\"]?[\w./:-]+[`'\"]? (does not exist|not found|is not found)",
    r"no such model",
)
WORDS: tuple[tuple[re.Pattern[str], Reason], ...] = tuple(
    (re.compile("|".join(words), re.IGNORECASE), reason)
    for words, reason in (
        (TOO_LONG, Reason.UPSTREAM_TOO_LONG),
        (BALANCE, Reason.UPSTREAM_BALANCE),
        (CREDENTIALS, Reason.UPSTREAM_CREDENTIALS),
        (FILTERED, Reason.UPSTREAM_FILTERED),
        (NO_MODEL, Reason.UPSTREAM_NO_MODEL),
    )
)
"""Reasons by a provider's words, the first that fits; for statuses that do not say which it is."""

WORDS_DECIDE = (NO_STATUS, 400, 403, 404, 413, 422, 429, 500)
"""Statuses that providers give to errors that differ."""

STATUSES: Mapping[int, Reason] = {
    401: Reason.UPSTREAM_CREDENTIALS,
    402: Reason.UPSTREAM_BALANCE,
    403: Reason.UPSTREAM_CREDENTIALS,
    404: Reason.UPSTREAM_NO_MODEL,
    408: Reason.UPSTREAM_OVERLOADED,
    409: Reason.UPSTREAM_OVERLOADED,
    413: Reason.UPSTREAM_TOO_LONG,
    425: Reason.UPSTREAM_OVERLOADED,
    429: Reason.UPSTREAM_RATE_LIMITED,
    498: Reason.UPSTREAM_OVERLOADED,  # Groq: capacity exceeded
    503: Reason.UPSTREAM_OVERLOADED,
    529: Reason.UPSTREAM_OVERLOADED,  # Anthropic
}
"""Reasons by status; other 4xx are the caller's fault, all else the upstream's."""


@pure
def reason_for(status: int, details: ErrorDetails) -> Reason:
    """The reason of an error.

    Args:
        status: the HTTP status, or NO_STATUS.
    """
    for word in (details.code, details.type):
        reason = CODES.get(word.lower())
        if reason is not None and not (reason is Reason.UPSTREAM_ERROR and status in WORDS_DECIDE):
            return reason
    if status in WORDS_DECIDE:
        for words, reason in WORDS:
            if words.search(details.message):
                return reason
    if status == NO_STATUS:
        is_refusal = details.type.lower() == "invalid_request_error"
        return Reason.UPSTREAM_REFUSED if is_refusal else Reason.UPSTREAM_ERROR
    caller = 400 <= status < 500
    return STATUSES.get(status, Reason.UPSTREAM_REFUSED if caller else Reason.UPSTREAM_ERROR)
