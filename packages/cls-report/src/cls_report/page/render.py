"""Render a report as one self-contained HTML file."""

import base64
import errno
import hashlib
import json
import os
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel

from cls_export.contract.files import write_atomically
from cls_report.page.blocks import Report
from cls_report.page.tables import score_cell, table_rows

_BASE_STYLES = ("palette", "layout", "blocks")
_BLOCK_STYLES = ("tables", "charts", "gallery", "confusion_matrix")
_STYLES = (*_BASE_STYLES, *_BLOCK_STYLES, "print")
_BASE_SCRIPTS = ("dom", "number_format", "navigation", "copy_code", "tables", "scales")
_CHART_SCRIPTS = ("chart_drawing", "chart_values", "chart_legend", "chart")
_IMAGE_SCRIPTS = ("gallery", "cell_images", "top_confusions", "confusion_counts")
_MATRIX_SCRIPTS = ("matrix_drawing", "matrix", "confusion_matrix")
_SCRIPTS = (*_BASE_SCRIPTS, *_CHART_SCRIPTS, *_IMAGE_SCRIPTS, *_MATRIX_SCRIPTS, "main")


class _PageData:
    """JSON elements and unique element ids of a page. The dot separates ids from section keys."""

    def __init__(self, images: tuple[str, ...]) -> None:
        urls = json.dumps(images, separators=(",", ":"), ensure_ascii=False)
        self.elements = [("page.images", _escape_json(urls))]
        self._last_id = 0

    def add(self, block: BaseModel) -> str:
        """Add the data of a block, and return the id of its element."""
        element_id = f"page.data-{len(self.elements)}"
        content = _escape_json(block.model_dump_json())
        self.elements.append((element_id, content))
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
    style = "\n".join(_asset(f"{name}.css") for name in _STYLES)
    theme_script = _asset("theme.js")
    scripts = "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
    script = f'(() => {{\n"use strict";\n{scripts}}})();\n'

    template = _environment().get_template("page.html")
    return template.render(
        report=report,
        data=_PageData(report.images),
        style=Markup(style),
        theme_script=Markup(theme_script),
        script=Markup(script),
        policy=_security_policy(theme_script, script),
    )


def write_report(report: Report, path: str | os.PathLike[str]) -> None:
    """Render a report and write it to a file atomically.

    Raises:
        OSError: The file cannot be written. It names `path`, not its draft.
    """
    target = Path(path)
    html = render(report)
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "this is a folder; expected the name of a file")
        write_atomically(target, html.encode())
    except OSError as error:
        reason = error.strerror or str(error)
        code = error.errno
        if isinstance(error, FileExistsError):  # a file where a folder is expected
            code = errno.ENOTDIR
            reason = f"{error.filename} is not a folder"
        raise OSError(code, f"the report cannot be written: {reason}", str(path)) from error


def _security_policy(*scripts: str) -> str:
    sources = []
    for script in scripts:
        digest = hashlib.sha256(script.encode()).digest()
        encoded = base64.b64encode(digest).decode()
        sources.append(f"'sha256-{encoded}'")
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src {' '.join(sources)}; base-uri 'none'; form-action 'none'"
    )


def _escape_json(text: str) -> Markup:
    """Escape JSON for a script element, which `</script` ends and `<!--` changes."""
    escaped = text.replace("<", "\\u003c")
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
def _asset(name: str) -> str:
    file = files("cls_report.page").joinpath("assets", name)
    return file.read_text("utf-8")
