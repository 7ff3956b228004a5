"""`python -m penstock.inference_upstream` starts the service."""

from __future__ import annotations

from penstock.hosting.life import run_service
from penstock.inference_upstream.build import ASSEMBLY


def main() -> None:
    run_service(ASSEMBLY)


if __name__ == "__main__":
    main()
