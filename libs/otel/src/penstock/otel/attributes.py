"""The one table of attribute and metric names: OpenTelemetry's for RPC and generative AI, and our
own below `penstock.`.

RPC names are those of the release candidate of the RPC conventions (semantic-conventions 1.44).
Names of generative AI, of agents, tools and MCP are those of semantic-conventions-genai 0.1.0, all
of stability "development": a newer release changes this table and nothing else. Import it as
`semconv`.
"""

from __future__ import annotations

SEMCONV_SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
"""The release that the names of RPC and of resources are of; sent with every export."""
GENAI_CONVENTIONS = "0.1.0"
"""The release of semantic-conventions-genai that the names below are of."""

RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.response.status_code"
ERROR_TYPE = "error.type"

RPC_SERVER_DURATION = "rpc.server.call.duration"
RPC_CLIENT_DURATION = "rpc.client.call.duration"

OPERATION = "gen_ai.operation.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
PROVIDER = "gen_ai.provider.name"
CONVERSATION = "gen_ai.conversation.id"
AGENT_NAME = "gen_ai.agent.name"
TOOL_NAME = "gen_ai.tool.name"
MCP_METHOD = "mcp.method.name"
MCP_SESSION = "mcp.session.id"

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
PREFIX_LOST_TOKENS = "penstock.prefix.lost_tokens"
"""Tokens of a prompt that could have been read from the provider's prefix cache and were not."""
PREFIX_LOST_MICROUSD = "penstock.prefix.lost_microusd"
PREFIX_LOSS = "penstock.prefix.loss"
"""Why they were not: the kind of change that broke the prefix, such as `clock`, or `moved`,
`expired`, `evicted`.
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
BACKGROUND = "penstock.background"
"""Which kind of background work a span or a duration is, see `penstock.otel.background`."""
BACKGROUND_DURATION = "penstock.background.duration"
"""How long background RPCs took; requests are counted in RPC_SERVER_DURATION and its sibling."""

RENAMED = {
    "gen_ai.system": PROVIDER,
    "gen_ai.usage.prompt_tokens": INPUT_TOKENS,
    "gen_ai.usage.completion_tokens": OUTPUT_TOKENS,
    "gen_ai.usage.cache_read_input_tokens": CACHED_TOKENS,
    "gen_ai.usage.cache_creation_input_tokens": CACHE_WRITE_TOKENS,
    "gen_ai.usage.cache_creation.input_tokens": CACHE_WRITE_TOKENS,
    "gen_ai.usage.input_tokens.cached": CACHED_TOKENS,
    "gen_ai.usage.input_tokens.cache_write": CACHE_WRITE_TOKENS,
    "gen_ai.usage.output_tokens.reasoning": REASONING_TOKENS,
    "gen_ai.openai.request.seed": "gen_ai.request.seed",
    "gen_ai.openai.request.service_tier": "openai.request.service_tier",
    "gen_ai.openai.response.service_tier": "openai.response.service_tier",
    "gen_ai.openai.response.system_fingerprint": "openai.response.system_fingerprint",
    "rpc.system": RPC_SYSTEM,
    "rpc.status_code": RPC_STATUS,
    "rpc.grpc.status_code": RPC_STATUS,
    "llm.model_name": REQUEST_MODEL,
    "llm.request.model": REQUEST_MODEL,
    "llm.response.model": RESPONSE_MODEL,
    "llm.provider": PROVIDER,
    "llm.token_count.prompt": INPUT_TOKENS,
    "llm.token_count.completion": OUTPUT_TOKENS,
    "llm.token_count.prompt_details.cache_read": CACHED_TOKENS,
    "llm.token_count.prompt_details.cache_write": CACHE_WRITE_TOKENS,
    "llm.token_count.completion_details.reasoning": REASONING_TOKENS,
}
"""Names that senders still use, of older releases of the conventions and of OpenInference, and the
present ones that are read in their place.
"""
