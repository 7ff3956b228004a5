"""Every variable `PENSTOCK_…` that any part of Penstock reads.

A name that nobody reads does nothing, and a misspelt limit is no limit, so a process refuses it.
Services share one environment, so each has to know the names of all. A test compares the list with
their settings.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

PREFIX = "PENSTOCK_"
SERVICES = (
    "batcher",
    "cache",
    "console",
    "edge",
    "inference-onnx-quantized",
    "inference-upstream",
    "limiter",
    "router",
    "scaler",
    "telemetry",
)
SETTINGS = frozenset(
    [
        "admin_listen",
        "admin_tokens",
        "advertise",
        "alert_webhook_hosts",
        "alert_webhook_secret",
        "alert_webhook_url",
        "allow_no_limits",
        "allow_plaintext",
        "allow_shared_token",
        "api_key",
        "batcher_address",
        "body_timeout_s",
        "cache_address",
        "cache_url",
        "callback_hosts",
        "callback_secret",
        "cell",
        "cell_address",
        "coalesce_max_temperature",
        "coalesce_ms",
        "compute_threads",
        "config_file",
        "connection_age_s",
        "console_token",
        "content_tenants",
        "decoder_threads",
        "default_deadline_ms",
        "default_model",
        "drain_s",
        "embedder",
        "envoy_listen",
        "expected_quantile",
        "first_piece_s",
        "forward_endpoint",
        "forward_queue_bytes",
        "grace_s",
        "header_timeout_s",
        "heartbeat_interval_ms",
        "hedge_budget",
        "high_queue_ms",
        "hold_ms",
        "home",
        "http_deadline_s",
        "idle_s",
        "instance_id",
        "internal_token",
        "job_attempts",
        "job_lease_ms",
        "job_slots",
        "keda_listen",
        "keep_alive_s",
        "kept_jobs_mib",
        "kept_receipts",
        "keys_listen",
        "keys_secret",
        "kserve",
        "kserve_http_listen",
        "kserve_token",
        "leader_ms",
        "lease_ms",
        "lease_overdraft_share",
        "lease_share",
        "ledger_url",
        "limiter_address",
        "limiter_loss",
        "listen",
        "local_beside",
        "local_command",
        "local_pool",
        "log_level",
        "low_queue_ms",
        "max_attempts",
        "max_attention_cells",
        "max_bodies_bytes",
        "max_body_bytes",
        "max_calls_per_key",
        "max_connections",
        "max_header_bytes",
        "max_key_body_bytes",
        "max_response_bytes",
        "max_tensor_bytes",
        "max_text_bytes",
        "max_texts",
        "memory_budget_bytes",
        "metadata_cloud",
        "metadata_url",
        "microusd_per_hour",
        "models",
        "normal_queue_ms",
        "notice_listen",
        "notice_secret",
        "open_jobs",
        "open_jobs_of_key",
        "otlp_endpoint",
        "otlp_http_listen",
        "poll_nice",
        "profile",
        "prometheus_listen",
        "providers",
        "receipt_ttl_s",
        "receipts_per_key",
        "refresh_s",
        "registry_address",
        "registry_listen",
        "response_ttl_s",
        "retry_budget",
        "router_address",
        "scaler_address",
        "secret",
        "send_timeout_s",
        "service_tokens_file",
        "spot",
        "store_patience_ms",
        "store_pause_ms",
        "store_timeout_ms",
        "strategy",
        "telemetry_address",
        "telemetry_pending_spans",
        "telemetry_series_bytes",
        "telemetry_window_bytes",
        "tick_s",
        "tls_ca",
        "tls_cert",
        "tls_dir",
        "tls_key",
        "try_deadline_ms",
        "upstream",
        "zone",
    ]
)
"""Fields of the services' settings: `PENSTOCK_X` for all, `PENSTOCK_<SERVICE>_X` for one."""
TOOLS = frozenset(
    [
        "address",
        "admin_token",
        "anthropic_sdk",
        "ca",
        "cert",
        "cli_profile",
        "command",
        "data",
        "edge",
        "go_tools",
        "key",
        "key_file",
        "limiter_admin",
        "model",
        "node_tools",
        "openai_python",
        "providers",
        "router_keys",
        "shape",
        "telemetry",
        "tls",
        "workers",
        "workers_listen",
    ]
)
"""Read by the supervisor, the command line, benchmarks, examples and tests."""
SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\w+)?)$")
"""What Kubernetes sets for each of its services, whatever they are called."""


def unknown_variables(names: Iterable[str]) -> list[str]:
    """A line for each name with our prefix that nothing reads, with the nearest known one."""
    known = _known()
    return [
        _problem(name, known)
        for name in sorted(names)
        if name.startswith(PREFIX) and name not in known and not SERVICE_LINK.search(name)
    ]


def _known() -> set[str]:
    services = [service.replace("-", "_") for service in SERVICES]
    of_services = (f"{service}_{field}" for service in services for field in SETTINGS)
    return {f"{PREFIX}{name}".upper() for name in (*SETTINGS, *TOOLS, *of_services)}


def _problem(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), 1, cutoff=0.0)
    return f"{name}: unknown variable; the nearest known one is {near[0]}"
