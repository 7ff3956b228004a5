"""Which attributes hold what people or models wrote, by families of names.

Instrumentations name content in many ways: OpenTelemetry's own conventions past and present,
OpenInference, OpenLLMetry, Vercel's AI SDK, Langfuse, MLflow, and others that do not exist yet. So
a name is judged by its families: by how it begins, and by the words that it is made of. Only text,
bytes, lists and maps can be content; numbers and booleans never are.
"""

from __future__ import annotations

import functools
import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OWN_NAMES = ("penstock.", "service.", "telemetry.", "process.", "host.", "os.", "k8s.")
"""Names that never hold content: ours, and those of resources."""

CONTENT_PREFIXES = (
    "ai.embedding",
    "ai.prompt",
    "ai.response.object",
    "ai.response.reasoning",
    "ai.response.text",
    "ai.response.toolcalls",
    "ai.result",
    "ai.toolcall.args",
    "ai.toolcall.result",
    "ai.value",
    "all_messages",
    "braintrust.",
    "crewai.",
    "document.",
    "embedding.embeddings",
    "embedding.text",
    "embedding.vector",
    "final_result",
    "gcp.vertex.agent.",
    "gen_ai.completion",
    "gen_ai.content",
    "gen_ai.event.content",
    "gen_ai.input",
    "gen_ai.output.messages",
    "gen_ai.prompt",
    "gen_ai.retrieval.documents",
    "gen_ai.retrieval.query",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.tool.definitions",
    "gen_ai.tool.description",
    "input.value",
    "langfuse.observation.input",
    "langfuse.observation.output",
    "langfuse.trace.input",
    "langfuse.trace.output",
    "langsmith.metadata",
    "llm.completions",
    "llm.function_call",
    "llm.input_messages",
    "llm.invocation_parameters",
    "llm.output_messages",
    "llm.prompt_template",
    "llm.prompts",
    "llm.request.functions",
    "llm.tools",
    "message.",
    "mlflow.spaninputs",
    "mlflow.spanoutputs",
    "mlflow.chat",
    "output.value",
    "reranker.input_documents",
    "reranker.output_documents",
    "reranker.query",
    "retrieval.documents",
    "smolagents.",
    "tool.json_schema",
    "tool.parameters",
    "traceloop.entity.input",
    "traceloop.entity.output",
)
"""How the names of content begin, in lower case; what follows does not matter."""

CONTENT_WORDS = _words(
    """
    answer answers arg argument audio body chat choice completion completions content contents
    context conversation data description doc docs document explanation image images input inputs
    instruction instructions memory message msg output outputs parameter passage passages payload
    prompt prompts query question reasoning reply response result results schema stacktrace
    statement summary text texts thinking thought thoughts transcript transcripts utterance video
    """
)
"""Words of a name that say that its value is content, unless its last word says otherwise."""

CONTAINER_WORDS = _words(
    """
    args arguments documents messages parameter parameters params variables
    """
)
"""Words of a name below which everything is content, whatever the last word is."""

DESCRIBING_WORDS = _words(
    """
    address algorithm cost count dimension dimensions duration encoding fingerprint format formats
    hash id ids index key kind language length level limit mimetype mode model name namespace
    number operation outcome provider reason reasons role score seed size source status tier time
    timestamp token tokens type types unit units version
    """
)
"""Last words of names that only describe: an identifier, a kind, a size."""

DESCRIBING_ENDINGS = ("error_code", "error.code", "status_code", "status.code")

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_BEGINNING = re.compile("|".join(re.escape(prefix) for prefix in sorted(CONTENT_PREFIXES)))


@functools.lru_cache(maxsize=16_384)
def is_content(name: str) -> bool:
    """Whether an attribute of this name holds content, where its value is one that can."""
    lowered = name.lower()
    if lowered.startswith(OWN_NAMES):
        return False
    if _BEGINNING.match(lowered):
        return True
    words = [word.lower() for word in _WORDS.findall(name) if not word.isdigit()]
    if not CONTAINER_WORDS.isdisjoint(words):
        return True
    if CONTENT_WORDS.isdisjoint(words):
        return False
    return words[-1] not in DESCRIBING_WORDS and not lowered.endswith(DESCRIBING_ENDINGS)
