"""HTML and SVG as nested calls. Plain text is escaped wherever it enters; nothing else can."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable


class Markup(str):
    """Text that is HTML already. Only this module makes it from text."""

    __slots__ = ()


def escaped(text: object) -> Markup:
    """Return the text as HTML, with control and bidirectional-override characters made visible.

    Names come from files that anybody may have written: `<script>` stays text, and a right-to-left
    override cannot rearrange a table.
    """
    if isinstance(text, Markup):
        return text
    visible = str(text)
    if not visible.isprintable():
        visible = "".join(
            "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char).startswith("C") else char
            for char in visible
        )
    return Markup(html.escape(visible, quote=True))


def joined(parts: Iterable[object]) -> Markup:
    """Return the parts one after the other, each escaped unless it is markup."""
    return Markup("".join(map(escaped, parts)))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """Return one element. `class_` means `class`, `stroke_width` means `stroke-width`; None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{joined(children)}</{name}>")


def image(name: str, /, **attributes: object) -> Markup:
    """Return a void element such as `img` or `meta`."""
    return Markup(element(name, **attributes).removesuffix(f"</{name}>"))


def table(head: Iterable[object], rows: Iterable[Iterable[object]], **attributes: object) -> Markup:
    """Return a table. A cell that is a `td` or `th` element stays as it is."""

    def cell(kind: str, content: object) -> Markup:
        ready = isinstance(content, Markup) and content.startswith(("<td", "<th"))
        return escaped(content) if ready else element(kind, content)

    header = element("thead", element("tr", *(cell("th", title) for title in head)))
    body = element("tbody", *(element("tr", *(cell("td", item) for item in row)) for row in rows))
    return element("table", header, body, **attributes)
