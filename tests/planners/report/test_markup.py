from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from trocar.planners.report.markup import Markup, element, escaped, image, joined, table


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(), st.text())
def test_any_text_stays_text(text: str, value: str) -> None:
    reader = Reader()
    reader.feed(element("p", text, title=value))
    reader.close()
    assert reader.tags == ["p"]
    assert [name for name, _ in reader.attributes] == ["title"]


def test_script_is_shown_and_not_run() -> None:
    assert escaped("<script>x</script>") == "&lt;script&gt;x&lt;/script&gt;"
    assert element("a", "b", title='"><i>') == '<a title="&quot;&gt;&lt;i&gt;">b</a>'


def test_control_and_bidirectional_characters_become_visible() -> None:
    assert escaped("a\x00b\u202ec\ud800d") == "a\ufffdb\ufffdc\ufffdd"
    assert escaped("5\u2009%") == "5\u2009%"


def test_markup_is_not_escaped_twice() -> None:
    inner = element("b", "<")
    assert element("p", inner, "&") == "<p><b>&lt;</b>&amp;</p>"
    assert isinstance(joined(["a", inner]), Markup)


def test_attribute_names() -> None:
    assert image("meta", http_equiv="x", class_="y", id=None) == '<meta http-equiv="x" class="y">'


def test_a_ready_cell_is_kept() -> None:
    written = table(("A",), [(element("td", 1, class_="n"),), ("<td",)])
    assert '<td class="n">1</td>' in written
    assert "<td>&lt;td</td>" in written
