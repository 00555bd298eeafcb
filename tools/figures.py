"""Fill in README's figures from the records of one device: `figures.py [--check] [FOLDER]`.

`tools/figures.md` is the text, with `{{record; path; format}}` where a figure stands: a record of the folder
(without `.json`), the path to a value in it, and how to write it. A step of a path is a key, or a key with
the row to choose from a table, `clips[way=live]`. Formats are Python's (`.1f`), with `%` before one for a
share in per cent, or:

- `pair .2f`: p50 / p99 of a timing; of fewer than 100 samples its largest in the place of p99
- `most TEXT`: the text where the value is more than half of the record's cases, else nothing

A line that begins with `{{? record}}` is left out where there is no such record. `--check` changes nothing
and exits 1 where README is not what the records say. Without a folder it is the one README names.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "tools" / "figures.md"
README = ROOT / "README.md"
_BEGIN = "<!-- figures of {folder}: `make figures` writes them from tools/figures.md -->"
_END = "<!-- end of figures -->"
_BLOCK = re.compile(r"<!-- figures of (\S+): .*?<!-- end of figures -->", re.DOTALL)


class Records:
    """The records of a folder, read when a figure wants one; they have to be of one processor."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, dict[str, Any]] = {}

    def has(self, name: str) -> bool:
        """Whether there is such a record."""
        return (self._folder / f"{name}.json").is_file()

    def __getitem__(self, name: str) -> dict[str, Any]:
        if name not in self._held:
            if not self.has(name):
                raise SystemExit(f"figures: expected a record {name}.json in {self._folder}, found none")
            self._held[name] = json.loads((self._folder / f"{name}.json").read_text(encoding="utf-8"))
            self._require_one_processor()
        return self._held[name]

    def _require_one_processor(self) -> None:
        """Times of different machines do not stand in one table; what was counted is the same on each."""
        timed = [one for one in self._held.values() if '"p50_ms"' in json.dumps(one)]
        if len(cpus := sorted({one["environment"]["cpu"] for one in timed})) > 1:
            raise SystemExit(f"figures: expected records of one processor in {self._folder}, got {cpus}")


def filled(template: str, records: Records) -> str:
    """The template with its figures."""
    lines = []
    for line in template.splitlines():
        if optional := re.match(r"\{\{\? ([^}]+)\}\}", line):
            if not records.has(optional[1]):
                continue
            line = line[optional.end() :]
        lines.append(re.sub(r"\{\{([^}]+)\}\}", lambda found: _figure(found[1], records), line))
    return "\n".join(lines)


def _figure(text: str, records: Records) -> str:
    name, path, *form = (part.strip() for part in text.split(";"))
    record = records[name]
    try:
        return _written(_value(record, path), form[0] if form else "", record)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SystemExit(f"figures: {{{{{text}}}}}: not in {name}.json: {error!r}") from None


def _value(record: Any, path: str) -> Any:
    for step in re.findall(r"[^/\[]+(?:\[[^\]]*\])?", path):
        key, _, chosen = step.partition("[")
        record = record[key]
        if chosen:
            wanted = dict(part.split("=") for part in re.split(r",(?=[\w ]+=)", chosen.rstrip("]")))
            rows = [row for row in record if all(_is(row.get(k), v) for k, v in wanted.items())]
            if not rows:
                raise SystemExit(f"figures: expected a row with {wanted} in {path}, found none")
            record = rows[0]
    return record


def _is(value: Any, text: str) -> bool:
    return float(value) == float(text) if isinstance(value, int | float) else str(value) == text


def _written(value: Any, form: str, record: Mapping[str, Any]) -> str:
    kind, _, rest = form.partition(" ")
    if kind == "pair":
        slowest = value["p99_ms"] if "p99_ms" in value else value["max_ms"]
        return f"{value['p50_ms']:{rest}} / {slowest:{rest}}"
    if kind == "most":
        return f" {rest}" if 2 * value > record["cases"] else ""
    if kind == "%":
        return f"{100.0 * value:{rest}}"
    return format(value, form)


def main(arguments: list[str]) -> int:
    """Write README, or check it."""
    check = "--check" in arguments
    readme = README.read_text(encoding="utf-8")
    block = _BLOCK.search(readme)
    if block is None:
        raise SystemExit(f"figures: expected {_BEGIN} to {_END} in README.md")
    folder = next((word.rstrip("/") for word in arguments if word != "--check"), block[1])
    text = filled(TEMPLATE.read_text(encoding="utf-8"), Records(ROOT / folder))
    made = readme.replace(block[0], f"{_BEGIN.format(folder=folder)}\n\n{text}\n\n{_END}")
    if check:
        if made != readme:
            print(f"README.md: its figures are not those of {folder}; run make figures", file=sys.stderr)
        return int(made != readme)
    README.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
