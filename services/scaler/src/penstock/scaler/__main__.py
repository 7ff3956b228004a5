"""`python -m penstock.scaler`, or `... replay trace.csv`."""

from __future__ import annotations

import sys

from penstock.hosting.life import run_service
from penstock.scaler.build import NAME, build
from penstock.scaler.replay import command
from penstock.scaler.settings import ScalerSettings


def main() -> None:
    if sys.argv[1:2] == ["replay"]:
        sys.exit(command.main(sys.argv[2:]))
    question = "How many instances should there be, and of which kind?"
    run_service(NAME, ScalerSettings, build, question)


if __name__ == "__main__":
    main()
