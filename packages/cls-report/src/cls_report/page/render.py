"""Render a report as one self-contained HTML file."""

import base64
import hashlib
import os
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, TypeAdapter

from cls_export.contract.files import write_atomically
from cls_report.page.blocks import Report
from cls_report.page.tables import score_cell, table_rows

_STYLES = (
    "palette",
    "layout",
    "blocks",
    "tables",
    "charts",
    "gallery",
    "confusion_matrix",
    "print",
)
_SCRIPTS = (
    "dom",
    "number_format",
    "navigation",
    "copy_code",
    "tables",
    "scales",
    "chart_drawing",
    "chart_values",
    "chart_legend",
    "chart",
    "gallery",
    "cell_images",
    "top_confusions",
    "confusion_counts",
    "matrix_drawing",
    "matrix",
    "confusion_matrix",
    "main",
)
_URLS = TypeAdapter(tuple[str, ...])


class _PageData:
    """JSON elements and unique element ids of a page. The dot separates ids from section keys."""

    def __init__(self, images: tuple[str, ...]) -> None:
        urls = _escape_json(_URLS.dump_json(images))
        self.elements = [("page.images", urls)]
        self._last_id = 0

    def add(self, block: BaseModel) -> str:
        """Add the data of a block, and return the id of its element."""
        element_id = f"page.data-{len(self.elements)}"
        content = block.model_dump_json().encode()
        self.elements.append((element_id, _escape_json(content)))
        return element_id

    def new_id(self) -> str:
        """Return an unused element id."""
        self._last_id += 1
        return f"page.block-{self._last_id}"


def render(report: Report) -> str:
    """Return the HTML of a report.

    The page loads nothing from the network. All names and texts are escaped, and a content
    security policy blocks every script but its own and every image but the embedded ones.
    """
    data = _PageData(report.images)
    style = "\n".join(_asset(f"{name}.css") for name in _STYLES)
    theme_script = _asset("theme.js")
    script = _joined_scripts()
    template = _environment().get_template("page.html")

    return template.render(
        report=report,
        data=data,
        style=Markup(style),
        theme_script=Markup(theme_script),
        script=Markup(script),
        policy=_security_policy(theme_script, script),
    )


def write_report(report: Report, path: str | os.PathLike[str]) -> None:
    """Render a report and write it to a file atomically."""
    html = render(report)
    write_atomically(path, html.encode())


def _security_policy(*scripts: str) -> str:
    sources = []
    for script in scripts:
        digest = hashlib.sha256(script.encode()).digest()
        sources.append(f"'sha256-{base64.b64encode(digest).decode()}'")

    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src {' '.join(sources)}; base-uri 'none'; form-action 'none'"
    )


def _escape_json(text: bytes) -> Markup:
    """Escape JSON for a script element, which `</script` ends and `<!--` changes."""
    escaped = text.decode().replace("<", "\\u003c")
    return Markup(escaped)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cls_report.page", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(table_rows=table_rows, score_cell=score_cell)
    return environment


@cache
def _joined_scripts() -> str:
    """Return all scripts in one function scope."""
    scripts = [_asset(f"{name}.js") for name in _SCRIPTS]
    joined = "\n".join(scripts)
    return f'(() => {{\n"use strict";\n{joined}}})();\n'


@cache
def _asset(name: str) -> str:
    file = files("cls_report.page").joinpath("assets", name)
    return file.read_text("utf-8")
