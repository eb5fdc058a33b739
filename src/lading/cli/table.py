"""Rows to text: docker's tables, `--format` in all its forms, `-q`. Owns alignment and which form was asked for.

A listing gives its columns once: (field, header, function of a row). Fields are computed only when shown.
"""

from __future__ import annotations

from lading.client.wire import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from lading.cli.context import Context

    Column = tuple[str, str, Callable[[Any], str]]

_LEAST, _GAP = 10, 3


def aligned(rows: Sequence[Sequence[str]], least: int = _LEAST, gap: int = _GAP) -> str:
    """Rows as text; every column but the last is padded to its widest cell plus `gap`, `least` at the least."""
    if not rows:
        return ""
    count = max(len(row) for row in rows)
    widths = [
        max(least, *(width(row[at]) + gap for row in rows if at < len(row) - 1)) if at < count - 1 else 0
        for at in range(count)
    ]
    out = []
    for row in rows:
        cells = [cell + " " * (widths[at] - width(cell)) for at, cell in enumerate(row[:-1])]
        out.append("".join(cells) + row[-1] + "\n")
    return "".join(out)


def width(text: str) -> int:
    """Cells of a terminal that `text` takes: wide East Asian characters take two."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


class Listing:
    """What a kind of thing can show of itself. `default` names the columns of the plain table."""

    __slots__ = ("by_name", "columns", "default")

    def __init__(self, columns: Sequence[Column], default: Sequence[str]) -> None:
        self.columns = columns
        self.default = default
        self.by_name = {column[0]: column for column in columns}

    def show(self, context: Context, items: Iterable[Any], form: str, shown: Sequence[str] = ()) -> None:
        """Write `items` in the form asked for: "" or "table" (columns `shown`), "table TEMPLATE", "json" or TEMPLATE."""
        if form in ("", "table"):
            picked = [self.by_name[name] for name in shown or self.default]
            rows: list[list[str]] = [[column[1] for column in picked]]
            rows += [[_cell(column[2](item)) for column in picked] for item in items]
            context.out.write(aligned(rows))
        elif form == "json":
            for item in items:
                context.out.line(dumps(self.fields(item)))
        else:
            self._template(context, items, form)

    def fields(self, item: Any) -> dict[str, str]:
        """Every field of one row."""
        return {name: self.by_name[name][2](item) for name in sorted(self.by_name)}

    def _template(self, context: Context, items: Iterable[Any], form: str) -> None:
        from lading.cli.template import Template

        head = form == "table" or form.startswith(("table ", "table\t", "table\\t"))
        text = form[5:].lstrip() if head else form
        template = Template(text.replace("\\t", "\t").replace("\\n", "\n"), "format")
        lines = []
        if head:
            lines.append(template.render({column[0]: column[1] for column in self.columns}, raw_json=True))
        lines += [template.render(Fields(self, item)) for item in items]
        if head:
            context.out.write(aligned([_cell(line).split("\t") for line in lines]))
        else:
            context.out.write("".join([line + "\n" for line in lines]))


class Fields:
    """One row as a template sees it: a field is computed when it is named; a wrong name is an error with the right ones."""

    __slots__ = ("item", "listing")

    def __init__(self, listing: Listing, item: Any) -> None:
        self.listing = listing
        self.item = item

    def field(self, name: str) -> Any:
        column = self.listing.by_name.get(name)
        if column is None:
            if name == "Label":
                return lambda key: _labels(self.item).get(key, "")
            raise KeyError(name)
        return column[2](self.item)

    def names(self) -> list[str]:
        return sorted(self.listing.by_name)

    def value(self) -> dict[str, str]:
        return self.listing.fields(self.item)


def _labels(item: Any) -> Mapping[str, str]:
    found = item.get("Labels") if isinstance(item, dict) else None
    return found if isinstance(found, dict) else {}


def labels(item: Any) -> str:
    """`a=1,b=2`, sorted."""
    return ",".join([f"{key}={value}" for key, value in sorted(_labels(item).items())])


def _cell(text: str) -> str:
    """Text of a cell without line ends, which would break the table."""
    return text.replace("\n", " ") if "\n" in text else text


def filters(pairs: Iterable[str]) -> dict[str, dict[str, bool]]:
    """Repeated `--filter KEY=VALUE` as the API takes them: {"status": {"running": true}}."""
    out: dict[str, dict[str, bool]] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        out.setdefault(key.strip().lower(), {})[value.strip()] = True
    return out
