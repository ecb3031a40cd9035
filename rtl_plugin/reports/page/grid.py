"""Matrices as pictures: one path a colour, so that 90,000 cells stay small."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rtl_plugin.reports.figures import shortened
from rtl_plugin.reports.page.colour_bins import ColourBins, Values
from rtl_plugin.reports.page.text import decimal

_ANNOTATED = 12  # columns whose cells have room for a value
_LETTER = 6.1  # width of a letter in the unit of the pictures
_LABEL = 20  # letters of a row's name
_MERGED = 40  # columns from which cells of a colour run together, to keep the paths short
GAP = 0.06  # between cells, of their width


@dataclass(frozen=True)
class Label:
    """Text at a place, with the whole name where it was shortened."""

    x: float
    y: float
    text: str
    whole: str


@dataclass(frozen=True)
class Cells:
    """All cells of one colour, as a path in units of cells."""

    classes: str
    path: str


@dataclass(frozen=True)
class Grid:
    """A matrix laid out.

    Args:
        key: of its ids in the page.
        title: what it shows.
        description: the picture in words.
        mirrored: whether the cells above the diagonal stand for those below, too.
        cell: width and height of a cell.
        thickness: height of the strokes that draw cells, of a cell's.
        values: text of cells.
    """

    key: str
    title: str
    description: str
    width: float
    height: float
    left: float
    top: float
    cell: tuple[float, float]
    cells: tuple[Cells, ...]
    thickness: float
    mirrored: bool
    rows: tuple[Label, ...]
    columns: tuple[Label, ...]
    values: tuple[tuple[Label, str], ...]


@dataclass(frozen=True)
class Caption:
    """The words of a picture."""

    key: str
    title: str
    description: str


def similarity_grid(
    caption: Caption, values: Values, names: Sequence[str], bins: ColourBins
) -> Grid:
    """A symmetric matrix of tickets, numbered as they come.

    Args:
        caption: its words.
        values: [K, K] finite, already ordered.
        names: of the tickets, in that order.
        bins: the colour steps.

    Returns:
        The picture; the diagonal, where a ticket meets itself, has no colour of a value.

    Example:
        >>> bins = ColourBins((0.0, 0.5, 1.0), ("q0", "q9"), 1)
        >>> grid = similarity_grid(Caption("g", "", ""), np.eye(2), ["a", "b"], bins)
        >>> [cells.classes for cells in grid.cells], grid.columns[1].text
        (['own', 'q0'], '2')
    """
    count = len(names)
    cell = _cell_size(count)
    named = count <= _MERGED
    left = _label_width(names, count) if named else 26.0
    steps = bins.steps(values)
    upper = np.triu(np.ones_like(steps, dtype=bool), 1)
    cells = [Cells("own", _path(np.eye(count, dtype=bool), count > _MERGED))]
    cells += _coloured(steps, bins, upper, count > _MERGED)
    return Grid(
        caption.key, caption.title, caption.description,
        width=left + count * cell + 12, height=18 + count * cell + 4, left=left, top=18.0,
        cell=(cell, cell), cells=tuple(cells), thickness=_thickness(count), mirrored=True,
        rows=_row_labels(names, left, 18.0, cell, numbered=True, named=named),
        columns=_column_numbers(count, left, 18.0, cell),
        values=_annotations(values, steps, bins, left, 18.0, (cell, cell), diagonal=False),
    )  # fmt: skip


def layer_grid(
    caption: Caption, values: Values, layers: Sequence[str], tickets: int, bins: ColourBins
) -> Grid:
    """Layers by tickets.

    Args:
        caption: its words.
        values: [L, K] finite.
        layers: L names.
        tickets: K.
        bins: the colour steps.

    Returns:
        The picture.

    Example:
        >>> bins = ColourBins((0.0, 0.5, 1.0), ("q0", "q9"), 1)
        >>> layer_grid(Caption("g", "", ""), np.array([[0.2, 0.7]]), ["w"], 2, bins).rows[0].text
        'w'
    """
    whole = layers
    if _too_long(layers) and all(name.endswith(".weight") for name in layers):
        layers = [name.removesuffix(".weight") for name in layers]
    width = min(46.0, max(2.0, 560 / tickets))
    height = 22.0 if len(layers) <= 40 else max(4.0, 880 / len(layers))
    left = _label_width(layers, 0)
    steps = bins.steps(values)
    dense = tickets > _MERGED
    return Grid(
        caption.key, caption.title, caption.description,
        width=left + tickets * width + 12, height=18 + len(layers) * height + 4,
        left=left, top=18.0, cell=(width, height),
        cells=tuple(_coloured(steps, bins, np.ones_like(steps, dtype=bool), dense)),
        thickness=_thickness(tickets),
        mirrored=False,
        rows=_whole_names(
            _row_labels(layers, left, 18.0, height, numbered=False, named=True), layers, whole
        ),
        columns=_column_numbers(tickets, left, 18.0, width),
        values=_annotations(values, steps, bins, left, 18.0, (width, height), diagonal=True),
    )  # fmt: skip


def _too_long(names: Sequence[str]) -> bool:
    return any(len(name) > _LABEL for name in names)


def _thickness(columns: int) -> float:
    return 1.0 if columns > _MERGED else 1.0 - GAP


def _cell_size(count: int) -> float:
    if count <= _ANNOTATED:
        return 34.0
    return 15.0 if count <= 40 else max(1.6, 480 / count)


def _label_width(names: Sequence[str], numbers: int) -> float:
    longest = max(min(len(name), _LABEL) for name in names) + (len(str(numbers)) + 1) * bool(
        numbers
    )
    return 8 + _LETTER * longest


def _path(chosen: npt.NDArray[np.bool_], merged: bool) -> str:
    """Runs of chosen cells, row by row, as strokes one cell high."""
    return "".join(_row_path(row, line, merged) for row, line in enumerate(chosen))


def _row_path(row: int, line: npt.NDArray[np.bool_], merged: bool) -> str:
    if not merged:
        width = f"{1 - GAP:g}"
        return "".join(f"M{k + GAP / 2:g} {row}h{width}" for k in np.flatnonzero(line))
    changes = np.flatnonzero(np.diff(line.astype(np.int8), prepend=0, append=0))
    parts, end = [], None
    for start, stop in changes.reshape(-1, 2).tolist():
        # A step from where the last run ended is shorter than a place.
        move = f"M{start} {row}" if end is None else f"m{start - end} 0"
        parts.append(f"{move}h{stop - start}")
        end = stop
    return "".join(parts)


def _coloured(
    steps: npt.NDArray[np.int64], bins: ColourBins, shown: npt.NDArray[np.bool_], merged: bool
) -> list[Cells]:
    used, times = np.unique(steps[shown], return_counts=True)
    if not merged or not used.size:
        return [Cells(bins.classes[k], _path((steps == k) & shown, merged)) for k in used]
    # The commonest colour lies under the others, so that its path need not go around them.
    common = used[np.argmax(times)]
    others = [k for k in used if k != common]
    parts = [Cells(bins.classes[common], _path(shown, merged))]
    return parts + [Cells(bins.classes[k], _path((steps == k) & shown, merged)) for k in others]


def _row_labels(
    names: Sequence[str], left: float, top: float, cell: float, *, numbered: bool, named: bool
) -> tuple[Label, ...]:
    every = 1 if cell >= 12 else int(np.ceil(12 / cell))
    if not named:
        every = _round_number(int(np.ceil(18 / cell)))
    labels = []
    for k, name in enumerate(names):
        if (k + 1) % every if not named else k % every:
            continue
        text = _fitted(name) if named else ""
        text = f"{text} {k + 1}".strip() if numbered else text
        labels.append(Label(left - 5, top + (k + 0.5) * cell, text, name))
    return tuple(labels)


def _whole_names(
    labels: Sequence[Label], short: Sequence[str], whole: Sequence[str]
) -> tuple[Label, ...]:
    names = dict(zip(short, whole, strict=True))
    return tuple(dataclasses.replace(label, whole=names[label.whole]) for label in labels)


def _column_numbers(count: int, left: float, top: float, cell: float) -> tuple[Label, ...]:
    every = _round_number(int(np.ceil(24 / cell)))
    chosen = [k for k in range(count) if (k + 1) % every == 0]
    return tuple(Label(left + (k + 0.5) * cell, top - 6, str(k + 1), "") for k in chosen)


def _round_number(least: int) -> int:
    return next(step for step in (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000) if step >= least)


def _fitted(name: str) -> str:
    line = " ".join(name.split())
    if len(line) <= _LABEL:
        return line
    short = shortened(line)
    half = _LABEL // 2
    return f"{short[:half]}…{short[half + 1 - _LABEL :]}"


def _annotations(
    values: Values,
    steps: npt.NDArray[np.int64],
    bins: ColourBins,
    left: float,
    top: float,
    cell: tuple[float, float],
    *,
    diagonal: bool,
) -> tuple[tuple[Label, str], ...]:
    """Each cell's value, where there is room, and the class of its ink."""
    if values.shape[1] > _ANNOTATED or values.shape[0] > 40:
        return ()
    places = [index for index in np.ndindex(*values.shape) if diagonal or index[0] != index[1]]
    return tuple(
        (
            Label(
                left + (column + 0.5) * cell[0],
                top + (row + 0.5) * cell[1],
                decimal(float(values[row, column]), 2).replace("0.", ".", 1),
                "",
            ),
            bins.ink(int(steps[row, column])),
        )
        for row, column in places
    )
