"""What a benchmark says: tables in Markdown, aligned, so that they can be read as they are printed."""

from typing import NamedTuple


class Table(NamedTuple):
    """A title, the names of the columns, rows of as many cells, and what is to be said below."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""

    def __str__(self) -> str:
        """The first column to the left, the numbers to the right."""
        cells = [self.header, *self.rows]
        widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(self.header))]

        def line(row: list[str]) -> str:
            first, *others = zip(row, widths, strict=True)
            padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
            return f"| {' | '.join(padded)} |"

        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        body = "\n".join([line(self.header), line(rule), *map(line, self.rows)])
        return f"### {self.title}\n\n{body}\n" + (f"\n{self.note}\n" if self.note else "")


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
