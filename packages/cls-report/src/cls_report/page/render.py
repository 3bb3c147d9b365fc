"""A report as one HTML text: all it needs is inside, it asks the network for nothing, and no name in it is obeyed."""

import base64
import hashlib
import os
from functools import cache
from importlib.resources import files
from itertools import count

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, TypeAdapter

from cls_export.contract.files import write_atomically
from cls_report.page.blocks import Report
from cls_report.page.tables import rows, score_cell

_STYLES = ("palette", "layout", "blocks", "tables", "charts", "pictures", "confusion", "print")
_SCRIPTS = (
    "dom",
    "figures",
    "navigation",
    "code",
    "tables",
    "scales",
    "chart_drawing",
    "chart_values",
    "chart_legend",
    "chart",
    "pictures",
    "cell_images",
    "top_confusions",
    "confusion_counts",
    "matrix_drawing",
    "matrix",
    "confusion",
    "main",
)
_ADDRESSES = TypeAdapter(tuple[str, ...])


def render(report: Report) -> str:
    """Return the page of a report, complete in itself: write it to a file as UTF-8 and open it from disk.

    Names and texts are shown as they are, whatever they hold; a policy in the page lets nothing run but its own script
    and nothing load but the pictures inside it.
    """
    data = [(_identifier("pictures"), _as_json(_ADDRESSES.dump_json(report.pictures)))]

    def kept(block: BaseModel) -> str:
        data.append((_identifier(f"data-{len(data)}"), _as_json(block.model_dump_json().encode())))
        return data[-1][0]

    early, script = Markup(_asset("theme.js")), Markup(_script())
    numbers = count(1)
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            data=data,
            kept=kept,
            new_id=lambda: _identifier(f"block-{next(numbers)}"),
            style=Markup("\n".join(_asset(f"{name}.css") for name in _STYLES)),
            early=early,
            script=script,
            policy=_policy(early, script),
        )
    )


def write_report(report: Report, path: str | os.PathLike[str]) -> None:
    """Write a report's page as UTF-8; a reader sees it whole or not at all."""
    write_atomically(path, render(report).encode())


def _identifier(name: str) -> str:
    """Name an element of the page itself; the dot keeps it apart from the keys of sections."""
    return f"page.{name}"


def _policy(*scripts: str) -> str:
    hashes = (
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    )
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


def _as_json(text: bytes) -> Markup:
    """Make JSON safe inside a script element, which ends at the first `</script` and changes its state at `<!--`."""
    return Markup(text.decode().replace("<", "\\u003c"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cls_report.page", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(rows=rows, score_cell=score_cell)
    return environment


@cache
def _script() -> str:
    """Join the page's scripts in one scope of their own."""
    return (
        '(() => {\n"use strict";\n'
        + "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
        + "})();\n"
    )


@cache
def _asset(name: str) -> str:
    return files("cls_report.page").joinpath("assets", name).read_text("utf-8")
