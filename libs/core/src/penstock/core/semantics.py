"""The one table of attribute names: OpenTelemetry's RPC and GenAI conventions, and our own below `penstock.`.

RPC names are those of the release candidate, GenAI names those of semantic-conventions-genai as of October 2026 (stability: development).
"""

from __future__ import annotations

VERSION = "genai-2026-10, rpc-rc"

RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.status_code"
ERROR_TYPE = "error.type"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
CONVERSATION = "gen_ai.conversation.id"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"

TENANT = "penstock.tenant"
RUN = "penstock.run.id"
STEP = "penstock.run.step"
PRIORITY = "penstock.priority"
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
