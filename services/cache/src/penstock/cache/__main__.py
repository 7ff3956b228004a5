"""`python -m penstock.cache`: serve the cache."""

from __future__ import annotations

from penstock.cache.build import NAME, build
from penstock.cache.settings import CacheSettings
from penstock.hosting.life import run_service


def main() -> None:
    """Run the cache until it is told to stop."""
    run_service(NAME, CacheSettings, build, "Is there an answer that may be reused?")


if __name__ == "__main__":
    main()
