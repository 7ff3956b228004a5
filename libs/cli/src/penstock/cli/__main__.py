"""`penstock`: the command.

`penstock trace ID` draws a trace, `penstock top` shows what happens now.
"""

from __future__ import annotations

from penstock.cli.command import main

if __name__ == "__main__":
    main()
