"""Shapes that mark the points of a line, so that colour is not all that tells lines apart."""

_SHAPES = 5
_RADIUS = 3.2


def marker_path(style: int, x: float, y: float, radius: float = _RADIUS) -> str:
    """The outline of a line's marker.

    Args:
        style: number of the line; shapes repeat after five.
        x: its middle.
        y: its middle.
        radius: in the unit of the picture.

    Returns:
        An SVG path: circle, square, diamond, triangle or bar.

    Example:
        >>> marker_path(1, 10, 10, 3)
        'M7 7h6v6h-6z'
    """
    r = radius
    shape = style % _SHAPES
    if shape == 0:
        arc = f"a{n(r)} {n(r)} 0 1 0"
        return f"M{n(x - r)} {n(y)}{arc} {n(2 * r)} 0{arc} {n(-2 * r)} 0z"
    if shape == 1:
        return f"M{n(x - r)} {n(y - r)}h{n(2 * r)}v{n(2 * r)}h{n(-2 * r)}z"
    if shape == 2:
        d = 1.3 * r
        return f"M{n(x)} {n(y - d)}l{n(d)} {n(d)}l{n(-d)} {n(d)}l{n(-d)} {n(-d)}z"
    if shape == 3:
        d = 1.25 * r
        return f"M{n(x)} {n(y - d)}l{n(d)} {n(1.8 * d)}h{n(-2 * d)}z"
    return f"M{n(x - 1.5 * r)} {n(y - 0.5 * r)}h{n(3 * r)}v{n(r)}h{n(-3 * r)}z"


def arrow_path(upwards: bool, x: float, y: float, radius: float = 6.5) -> str:
    """A triangle that says in which direction a curve broke.

    Args:
        upwards: point up (a rise) or down (a fall).
        x: its middle.
        y: its middle.
        radius: in the unit of the picture.

    Returns:
        An SVG path.

    Example:
        >>> arrow_path(True, 10, 10, 4)
        'M10 6l4 6.4h-8z'
    """
    sign = -1 if upwards else 1
    return f"M{n(x)} {n(y + sign * radius)}l{n(radius)} {n(-sign * 1.6 * radius)}h{n(-2 * radius)}z"


def n(value: float) -> str:
    """A coordinate with one decimal at most.

    Args:
        value: the coordinate.

    Returns:
        Text for SVG.

    Example:
        >>> n(10.0), n(0.25), n(-0.01)
        ('10', '0.2', '0')
    """
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
