"""The one table of attribute and metric names: OpenTelemetry's for RPC and generative AI, and our
own below `penstock.`.

RPC names are those of the release candidate of the RPC conventions. Names of generative AI are
those of semantic-conventions-genai of October 2026, all of stability "development": a newer draft
changes this table and nothing else. Import it as `semconv`.
"""

from __future__ import annotations

RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.status_code"
ERROR_TYPE = "error.type"

RPC_SERVER_DURATION = "rpc.server.call.duration"
RPC_CLIENT_DURATION = "rpc.client.call.duration"

OPERATION = "gen_ai.operation.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"

TENANT = "penstock.tenant"
RUN = "penstock.run.id"
STEP = "penstock.run.step"
PRIORITY = "penstock.priority"
HOST_BOOT_ID = "penstock.host.boot_id"
"""The running kernel: the same in every container of a machine, unlike host names."""
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
"""False on a span that its parent did not wait for."""
KEPT = "penstock.kept"
"""Why a span of a trace that is not sampled is exported: `error` or `slow`."""
REQUEST_ID = "penstock.request_id"
MODEL = "penstock.model"
TIER = "penstock.tier"
CACHE_RULE = "penstock.cache.rule"
CONFIDENCE = "penstock.confidence"
"""A model's confidence in its answer, 0 to 1; the cache's confidence is CACHE_CONFIDENCE."""
CACHE_CONFIDENCE = "penstock.cache.confidence"
TYPICALITY = "penstock.embedding.typicality"
"""Cosine between the embedding of an answer and the mean of its model's first embeddings."""
PROMPT_PREFIX_SHARE = "penstock.prompt.prefix_share"
"""Estimated share of a prompt that a provider can read from its prefix cache, 0 to 1; what it did
read is CACHED_TOKENS.
"""
PROMPT_DECISIONS = "penstock.prompt.decisions"
"""What was done to each block of a prompt and why, a line each; no text of the prompt."""
SPAN_DURATION = "penstock.span.duration"
CALLS = "penstock.calls"
AGREEMENT = "penstock.agreement"
"""Whether the model gives again the answer that the cache reused: 1 or 0, or a mean of those."""
OPERATOR_FAULTS = "penstock.operator_faults"
"""Tries that failed for what the operator has to mend, by instance and reason."""
CONTEXT_WINDOW = "penstock.context_window_tokens"
UNBALANCED = "penstock.unbalanced_receipts"
LATENCY_MS = "penstock.latency_ms"
DROPPED_SPANS = "penstock.telemetry.dropped_spans"

CONTENT_ATTRIBUTES = (
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.prompt",
    "gen_ai.completion",
)
"""Attributes that hold what people wrote: never recorded unless a tenant opts in."""

BACKGROUND_RPCS = (
    "RegistryService/",
    "TelemetryService/",
    "/AttachInstance",
    "/ComputeBatch",
    "/GetScoreboard",
    "/ListModels",
    "/ListQueues",
)
"""Parts of the names of RPCs that no request causes: heartbeats, batches of many items, queries of
the console. They begin no trace.
"""
