"""What plots share: figures without pyplot, colours, names that fit, and the PNG file."""

import io
import os
from pathlib import Path
from typing import Any

from rtl_plugin.checkpoint import write_atomically
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.extras import require

# Okabe and Ito's palette for colour-blind readers, without its yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "D", "^", "v")
DPI = 150
_LONGEST_NAME = 32


def png_path(path: str | os.PathLike[str]) -> Path:
    """The path of a PNG to write.

    Args:
        path: ends in ".png", in any case of letters.

    Returns:
        The path.

    Raises:
        InvalidArgument: another ending, or a folder of that name.

    Example:
        >>> png_path("plots/accuracy.png").name
        'accuracy.png'
    """
    target = Path(path)
    if target.suffix.lower() != ".png" or target.is_dir():
        raise InvalidArgument(
            f"path: expected a file name ending in .png, got {os.fspath(path)!r}: plots are PNG"
        )
    return target


def new_figure(width: float, height: float) -> Any:
    """An empty figure that no global state knows of.

    Args:
        width: in inches.
        height: in inches.

    Returns:
        A `matplotlib.figure.Figure` whose layout makes room for labels.

    Raises:
        MissingExtra: matplotlib is not installed.

    Example:
        >>> new_figure(4, 3).axes
        []
    """
    figure = require("matplotlib.figure", "report", "plots").Figure
    return figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def write_png(figure: Any, target: Path) -> None:
    """Render a figure and write it atomically; the same figure gives the same bytes.

    Args:
        figure: from `new_figure`.
        target: from `png_path`; missing parent folders are made.

    Raises:
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_png(new_figure(1, 1), Path(folder, "empty.png"))
        ...     Path(folder, "empty.png").read_bytes()[1:4]
        b'PNG'
    """
    canvas = require("matplotlib.backends.backend_agg", "report", "plots").FigureCanvasAgg
    content = io.BytesIO()
    # Without this, the bytes would name the version of matplotlib.
    canvas(figure).print_png(content, metadata={"Software": None})
    write_atomically(target, content.getvalue())


def shortened(name: str) -> str:
    """A name cut in its middle, so that its beginning and end still tell it from others.

    Args:
        name: of any length.

    Returns:
        At most 32 characters.

    Example:
        >>> shortened("environment-of-the-first-recording-2024")
        'environment-of-t…-recording-2024'
    """
    if len(name) <= _LONGEST_NAME:
        return name
    head = _LONGEST_NAME // 2
    return f"{name[:head]}…{name[head + 1 - _LONGEST_NAME :]}"


def title_inches(title: str) -> float:
    """How wide a figure must be for its title, set in 11 points.

    Args:
        title: one line.

    Returns:
        Inches, with a margin.

    Example:
        >>> title_inches("x" * 20) > 2
        True
    """
    return 0.105 * len(title) + 0.6
