"""The one log stream: each line behind its service's name in its own colour."""

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


class LogStream:
    """A line sink that prints to a console, and keeps the newest lines for when something goes
    wrong.
    """

    KEPT_LINES = 200

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._colours: dict[str, str] = {"penstock": "bold white"}
        self._kept: list[Text] = []

    def __call__(self, name: str, line: str) -> None:
        colour = self._colours.setdefault(name, COLOURS[(len(self._colours) - 1) % len(COLOURS)])
        text = Text.assemble((f"{name:>22} │ ", colour), line)
        self._kept = [*self._kept[-self.KEPT_LINES :], text]
        if not self._quiet:
            self._console.print(text, soft_wrap=True)

    def replay(self) -> None:
        """Print what was kept back while quiet."""
        for text in self._kept:
            self._console.print(text, soft_wrap=True)
