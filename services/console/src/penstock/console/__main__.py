"""`python -m penstock.console`."""

from __future__ import annotations

from penstock.console.build import NAME, build
from penstock.console.settings import ConsoleSettings
from penstock.hosting.life import run_service


def main() -> None:
    run_service(NAME, ConsoleSettings, build, "What is going on, at a glance?")


if __name__ == "__main__":
    main()
