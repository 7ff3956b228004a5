"""`python -m penstock.cli` is the command `penstock`."""

from __future__ import annotations

from penstock.cli.command import main

if __name__ == "__main__":
    main()
