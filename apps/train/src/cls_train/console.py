"""Print the results table."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cls_export.contract.text import escape_control_characters


def print_summary(rows: dict[str, str]) -> None:
    """Print the results of a run as a table. Names from the data are text, never markup."""
    table = Table(title="finished", show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(Text(name), Text(escape_control_characters(value)))

    Console().print(table)
