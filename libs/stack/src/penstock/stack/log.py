"""The log of a stack: the lines of all processes, each after its name in a colour of its own."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

COLOURS = (
    "cyan",
    "green",
    "yellow",
    "blue",
    "magenta",
    "bright_cyan",
    "bright_green",
    "bright_yellow",
    "bright_blue",
)
MAX_RECENT_LINES = 200
STORE_CHATTER = ("Memory overcommit must be enabled", "signal-handler (", "is now ready to exit")
"""Lines of an embedded store that it writes even where only warnings are asked for, and that ask
nothing of whoever reads the log.
"""
NAME_WIDTH = 22


class LogStream:
    """A line sink that prints to a console and remembers the last lines.

    With `quiet` it prints nothing; `replay` shows the remembered lines after a failure.
    """

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._colours: dict[str, str] = {"penstock": "bold white"}
        self._recent: list[Text] = []

    def __call__(self, name: str, line: str) -> None:
        if name.startswith("redis-") and any(words in line for words in STORE_CHATTER):
            return
        colour = self._colours.setdefault(name, COLOURS[(len(self._colours) - 1) % len(COLOURS)])
        text = Text.assemble((f"{name:>{NAME_WIDTH}} │ ", colour), line)
        self._recent = [*self._recent[1 - MAX_RECENT_LINES :], text]
        if not self._quiet:
            self._console.print(text, soft_wrap=True)

    def replay(self) -> None:
        """Print the remembered lines."""
        for text in self._recent:
            self._console.print(text, soft_wrap=True)
