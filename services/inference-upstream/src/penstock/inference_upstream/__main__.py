"""`python -m penstock.inference_upstream` starts the service."""

from __future__ import annotations

from penstock.hosting.life import run_service
from penstock.inference_upstream.build import NAME, build
from penstock.inference_upstream.settings import UpstreamSettings


def main() -> None:
    run_service(NAME, UpstreamSettings, build, "What does the upstream say?")


if __name__ == "__main__":
    main()
