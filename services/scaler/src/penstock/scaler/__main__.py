"""`python -m penstock.scaler`, or `... replay trace.csv`."""

from __future__ import annotations

import sys

from penstock.hosting.life import run_service
from penstock.scaler.build import ASSEMBLY
from penstock.scaler.replay import command


def main() -> None:
    if sys.argv[1:2] == ["replay"]:
        sys.exit(command.main(sys.argv[2:]))
    run_service(ASSEMBLY)


if __name__ == "__main__":
    main()
