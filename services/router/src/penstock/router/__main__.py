"""`python -m penstock.router`."""

from __future__ import annotations

from penstock.hosting.life import run_service
from penstock.router.build import NAME, build
from penstock.router.settings import RouterSettings


def main() -> None:
    question = "Which instance should serve this, and what if it fails?"
    run_service(NAME, RouterSettings, build, question, edge=True)


if __name__ == "__main__":
    main()
