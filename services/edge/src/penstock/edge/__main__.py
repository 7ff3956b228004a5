"""`python -m penstock.edge`."""

from __future__ import annotations

from penstock.edge.build import ASSEMBLY
from penstock.hosting.life import run_service


def main() -> None:
    run_service(ASSEMBLY)


if __name__ == "__main__":
    main()
