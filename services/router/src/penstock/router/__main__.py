"""`python -m penstock.router`."""

from __future__ import annotations

from penstock.hosting.life import run_service
from penstock.router.build import ASSEMBLY


def main() -> None:
    run_service(ASSEMBLY)


if __name__ == "__main__":
    main()
