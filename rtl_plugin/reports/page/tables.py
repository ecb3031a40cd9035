"""Tables as plain data: a caption, columns, rows of text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Args:
        key: of its ids in the page.
        caption: what it shows.
        columns: headers; one that begins with "#" is of numbers, and set flush right, one that
            begins with "~" is of sentences.
        rows: cells of text, one a column.
        links: where the first cell of each row leads to, or empty.
    """

    key: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    links: tuple[str, ...] = ()


def table(
    key: str,
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    links: Sequence[str] = (),
) -> Table:
    """A table, its rows checked against its columns.

    Args:
        key: of its ids in the page.
        caption: what it shows.
        columns: headers, numeric ones marked with "#".
        rows: cells of text.
        links: one a row, or none.

    Returns:
        The table.

    Raises:
        ValueError: a row of another length.

    Example:
        >>> table("t", "Sizes", ["layer", "#weights"], [["w", "4"]]).rows
        (('w', '4'),)
    """
    checked = tuple(tuple(row) for row in rows)
    for row in checked:
        if len(row) != len(columns):
            raise ValueError(f"{caption}: {len(columns)} columns, but a row has {len(row)} cells")
    return Table(key, caption, tuple(columns), checked, tuple(links))
