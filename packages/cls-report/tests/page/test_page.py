import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from cls_report.page.blocks import (
    Code,
    Column,
    ConfusionMatrix,
    Facts,
    Gallery,
    GalleryItem,
    Report,
    Score,
    Scores,
    Section,
    Table,
    Text,
)
from cls_report.page.render import render
from cls_report.statistics.estimates import Estimate

VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """The elements and texts of a page. Elements that are not properly nested are an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def attribute_values(self, name: str) -> list[str]:
        return [
            value or ""
            for _, attributes in self.elements
            for key, value in attributes.items()
            if key == name
        ]


def one_section(*blocks: object, **report: object) -> Report:
    sections = (Section.model_validate({"key": "one", "title": "One", "blocks": blocks}),)
    return Report.model_validate(
        {"title": "run", "subtitle": "test", "sections": sections, **report}
    )


def test_page_is_well_formed_and_references_existing_unique_ids(
    rich_report: Report,
) -> None:
    outline = Outline(render(rich_report))
    identifiers = outline.attribute_values("id")
    assert [name for name, count in Counter(identifiers).items() if count > 1] == []
    assert set(outline.attribute_values("aria-labelledby")) <= set(identifiers)
    assert {
        link.removeprefix("#") for link in outline.attribute_values("href") if link != "data:,"
    } <= set(identifiers)
    assert set(outline.attribute_values("data-source")) <= set(identifiers)
    assert [section.key for section in rich_report.sections] == [
        name for name in identifiers if "." not in name
    ]


def test_heading_levels_are_not_skipped(rich_report: Report) -> None:
    levels = [
        int(tag[1])
        for tag, _ in Outline(render(rich_report)).elements
        if re.fullmatch("h[1-6]", tag)
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_page_references_nothing_outside_the_file(rich_report: Report) -> None:
    page = render(rich_report)
    without_namespace = page.replace('"http://www.w3.org/2000/svg"', "")
    assert re.findall(r"https?:|//[a-z]+\.|@import|url\(", without_namespace) == []
    assert [tag for tag, attributes in Outline(page).elements if attributes.get("src")] == []


def test_security_policy_allows_exactly_the_scripts_of_the_page(rich_report: Report) -> None:
    page = render(rich_report)
    policy = next(
        value for value in Outline(page).attribute_values("content") if "default-src" in value
    )
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "script-src " + " ".join(f"'sha256-{each}'" for each in hashes),
        "base-uri 'none'",
        "form-action 'none'",
    ]


NAMES = st.text(
    st.one_of(
        st.sampled_from("<>/\"'&!-=`{}%$\\ \n\u202e\u2028"),
        st.characters(exclude_categories=["Cs", "Cc"]),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(name=NAMES)
def test_names_are_escaped_in_every_block(name: str) -> None:
    blocks = (
        Text(text=name),
        Facts(facts={name: name}),
        Code(title=name, text=name),
        Scores(
            title=name,
            scores=(Score(title=name, estimate=Estimate(value=1), unit="share", note=name),),
        ),
        Table(
            title=name, columns=(Column(title=name, kind="text", values=(name, None)),), note=name
        ),
        Gallery(title=name, items=(GalleryItem(image=0, title=name, lines=(name,)),), note=name),
        ConfusionMatrix(
            title=name,
            classes=(name,),
            labels=(0,),
            predicted=(0,),
            confidence=(1,),
            names=(name,),
            images=(0,),
        ),
    )
    plain = [
        (tag, set(attributes)) for tag, attributes in Outline(render(titled(blocks, "a"))).elements
    ]
    outline = Outline(render(titled(blocks, name)))
    assert [tag for tag, _ in outline.elements if tag == "script"] == [
        tag for tag, _ in plain if tag == "script"
    ]
    expected = {tag for tag, _ in plain} | {"bdi", "span"}
    assert {tag for tag, _ in outline.elements} <= expected
    allowed = {key for _, keys in plain for key in keys} | {"data-key"}
    assert {key for _, attributes in outline.elements for key in attributes} <= allowed
    data = [
        json.loads(text)
        for tag, text in outline.texts
        if tag == "script" and text.startswith('{"block"')
    ]
    assert data[0]["classes"] == [name]


def titled(blocks: tuple[object, ...], name: str) -> Report:
    section = Section.model_validate({"key": "one", "title": name, "blocks": blocks})
    return Report(title=name, subtitle=name, sections=(section,))


def test_empty_reports_and_blocks_are_rendered() -> None:
    Outline(render(Report(title="", subtitle="", sections=())))
    Outline(
        render(
            one_section(
                Table(title="empty", columns=()), Scores(title="none", scores=()), Facts(facts={})
            )
        )
    )


def test_page_is_small_and_contains_each_image_once(make: Callable[..., Report]) -> None:
    report = make(("cat", "dog"), images=50, included=50)
    page = render(report)
    assert len(page) - sum(map(len, report.images)) < 150_000
    assert page.count(report.images[7]) == 1
