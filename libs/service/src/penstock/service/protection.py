"""What a process refuses to run without in production, and what keeps secrets in its memory."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import sys

from penstock.service.settings import ServiceSettings

log = logging.getLogger(__name__)

PR_SET_DUMPABLE = 4
"""Of Linux's prctl(2): whether the memory of the process may be dumped or read by its peers."""


def missing_protection(settings: ServiceSettings) -> list[str]:
    """A line for each protection that the production profile asks for and the settings lack, with
    the variable that allows it.
    """
    if settings.profile != "production":
        return []
    return [*_without_tls(settings), *settings.missing_in_production()]


def _without_tls(settings: ServiceSettings) -> list[str]:
    if settings.tls_files() is not None:
        return []
    problems = []
    if not settings.allow_plaintext:
        problems.append(
            "PENSTOCK_TLS_DIR: the production profile needs TLS; set it, or "
            "PENSTOCK_ALLOW_PLAINTEXT=true where a mesh encrypts or all is on one machine"
        )
    if settings.internal_token and not (
        settings.service_tokens_file is not None or settings.allow_shared_token
    ):
        problems.append(
            "PENSTOCK_INTERNAL_TOKEN: one token for all services lets each call as any other; set "
            "PENSTOCK_TLS_DIR or PENSTOCK_SERVICE_TOKENS_FILE, or PENSTOCK_ALLOW_SHARED_TOKEN=true"
        )
    return problems


def forbid_dumps() -> None:
    """Let no core dump and no other process of this user see the memory, which holds keys and
    content.
    """
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        log.warning("this process can be dumped: prctl refuses PR_SET_DUMPABLE")
