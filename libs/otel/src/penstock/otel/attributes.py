"""The one table of attribute names: OpenTelemetry's RPC and GenAI conventions, and our own below
`penstock.`.

RPC names are those of the release candidate, GenAI names those of semantic-conventions-genai as of
October 2026 (stability: development).
"""

from __future__ import annotations

VERSION = "genai-2026-10, rpc-rc"
"""Every GenAI item is still of stability Development: a newer draft changes this table and nothing
else.
"""

RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.status_code"
ERROR_TYPE = "error.type"

RPC_SERVER_DURATION = "rpc.server.call.duration"
RPC_CLIENT_DURATION = "rpc.client.call.duration"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
CONVERSATION = "gen_ai.conversation.id"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
WRITTEN_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"

TENANT = "penstock.tenant"
RUN = "penstock.run.id"
STEP = "penstock.run.step"
PRIORITY = "penstock.priority"
HOST = "penstock.host.boot_id"
"""The running kernel a process is on: the same in every container of a machine, which names of
hosts are not.
"""
INSTANCE = "penstock.instance.id"
ROUTE_REASON = "penstock.route.reason"
ROUTE_SCORE = "penstock.route.score"
ATTEMPTS = "penstock.route.attempts"
CACHE_OUTCOME = "penstock.cache.outcome"
BATCH_SIZE = "penstock.batch.size"
QUEUED_MS = "penstock.batch.queued_ms"
COMPUTE_MS = "penstock.compute_ms"
PAID = "penstock.cost.microusd"
FULL_PRICE = "penstock.cost.full_price_microusd"
SAVED = "penstock.saved.microusd"
SAVED_MS = "penstock.saved.ms"
TECHNIQUE = "penstock.technique"
WAITED_ON = "penstock.waited_on"
REASON = "penstock.reason"
KEPT = "penstock.kept"
REQUEST = "penstock.request_id"
MODEL = "penstock.model"
TIER = "penstock.tier"
CACHE_RULE = "penstock.cache.rule"
CONFIDENCE = "penstock.confidence"
"""How sure a model is of its answer; how sure the cache was stands in CACHE_CONFIDENCE."""
CACHE_CONFIDENCE = "penstock.cache.confidence"
TYPICALITY = "penstock.embedding.typicality"
"""Cosine of an answer's embedding to the mean of its model's first ones: how usual what is asked
is.
"""
PROMPT_PREFIX_SHARE = "penstock.prompt.prefix_share"
"""Estimated share of a prompt that a provider can read from its prefix cache; what it did read is
CACHED_TOKENS.
"""
PROMPT_DECISIONS = "penstock.prompt.decisions"
"""What was done to each block of a prompt and why, a line each; no text of the prompt."""
SPAN_DURATION = "penstock.span.duration"
CALLS = "penstock.calls"
AGREEMENT = "penstock.agreement"
CONTEXT_WINDOW = "penstock.context_window_tokens"
UNBALANCED = "penstock.unbalanced_receipts"
LATENCY_MS = "penstock.latency_ms"
DROPPED_SPANS = "penstock.telemetry.dropped_spans"

INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
CONTENT = (
    INPUT_MESSAGES,
    OUTPUT_MESSAGES,
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.prompt",
    "gen_ai.completion",
)
"""Attributes that hold what people wrote: never recorded unless a tenant opts in."""

BACKGROUND = (
    "RegistryService/",
    "TelemetryService/",
    "/AttachInstance",
    "/ComputeBatch",
    "/GetScoreboard",
    "/ListModels",
    "/ListQueues",
)
"""Parts of RPC names that nobody's request makes: heartbeats, carriers of many items, looking on.
They begin no trace.
"""

TIERS = ((64, "short"), (512, "medium"), (4096, "long"))
"""Complexity tier of a call by its tokens, in and out; above the last bound it is `huge`."""


def tier_of(tokens: int) -> str:
    """The complexity tier of a call with this many tokens."""
    return next((name for bound, name in TIERS if tokens <= bound), "huge")
