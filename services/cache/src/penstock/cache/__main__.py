"""`python -m penstock.cache`: serve the cache."""

from __future__ import annotations

from penstock.cache.build import ASSEMBLY
from penstock.hosting.life import run_service


def main() -> None:
    """Run the cache until it is told to stop."""
    run_service(ASSEMBLY)


if __name__ == "__main__":
    main()
