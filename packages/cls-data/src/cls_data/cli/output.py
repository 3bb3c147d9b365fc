"""Output of the commands. Names from data cannot control the terminal."""

import sys
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from cls_export.contract.text import escape_control_characters


def print_line(text: str) -> None:
    """Print text that may have names from data."""
    print(escape_control_characters(text))


def print_renderable(renderable: RenderableType) -> None:
    """Print a table or styled text that may have names from data.

    Raises:
        OSError: Standard output is closed or full. Rich itself would exit with code 1.
    """
    console = Console()
    with console.capture() as capture:
        console.print(_Escaped(renderable))
    sys.stdout.write(capture.get())


class _Escaped:
    """A renderable with the control characters of its text escaped."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(escape_control_characters(segment.text), segment.style)
