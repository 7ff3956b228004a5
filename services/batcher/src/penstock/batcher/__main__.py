"""`python -m penstock.batcher` starts the service."""

from __future__ import annotations

from penstock.batcher.build import ASSEMBLY
from penstock.hosting.life import run_service


def main() -> None:
    run_service(ASSEMBLY)


if __name__ == "__main__":
    main()
