"""Colours of the page in both schemes, chosen so that what must be told apart can be."""

from collections.abc import Mapping, Sequence

STYLES = 10  # tickets that get a colour, a dash pattern and a marker of their own

LIGHT: Mapping[str, str] = {
    "bg": "#ffffff",
    "surface": "#f5f7f9",
    "text": "#1b2026",
    "muted": "#55606b",
    "line": "#d5dbe1",
    "axis": "#7b858f",
    "link": "#0a58c2",
    "focus": "#0a58c2",
    "alarm": "#b3261e",
    "thin": "#8796a5",
    "bar": "#2f74b5",
    "own": "#dfe3e8",
    "shade": "#c9d1d9",
}
DARK: Mapping[str, str] = {
    "bg": "#12161b",
    "surface": "#1b2128",
    "text": "#e7eaee",
    "muted": "#a3adb8",
    "line": "#333c46",
    "axis": "#7f8a96",
    "link": "#8ab8ff",
    "focus": "#8ab8ff",
    "alarm": "#ff8a80",
    "thin": "#6b7885",
    "bar": "#5aa2e0",
    "own": "#3a424c",
    "shade": "#46515d",
}
# At least 3 : 1 against the background, as WCAG 2.1 asks of graphical objects.
_LINES_LIGHT = (
    *("#0072b2", "#c44e00", "#00795a", "#a3387f", "#8a6500"),
    *("#5b5bd6", "#a8324a", "#4a7a14", "#00758f", "#4d4d4d"),
)
_LINES_DARK = (
    *("#56b4e9", "#ff9d57", "#3fcf9f", "#e78ac3", "#e5c04a"),
    *("#a5a5ff", "#ff94a8", "#9bd36a", "#4dd0e1", "#c4c4c4"),
)
SEQUENTIAL_BINS, DIVERGING_BINS = 10, 11
_SEQUENTIAL_LIGHT = ("#eef4fa", "#7db3dc", "#2a75b3", "#08306b")
_SEQUENTIAL_DARK = ("#1d2833", "#27608f", "#5aa6df", "#dcefff")
_DIVERGING_LIGHT = ("#8c510a", "#dfb36c", "#f3f3f3", "#70bfb3", "#01665e")
_DIVERGING_DARK = ("#f0b566", "#94682c", "#252b32", "#287f75", "#6fe0d0")


def relative_luminance(colour: str) -> float:
    """How bright a colour is, as WCAG 2 defines it.

    Args:
        colour: ``"#rrggbb"``.

    Returns:
        0 (black) to 1 (white).

    Example:
        >>> relative_luminance("#ffffff")
        1.0

    Source:
        W3C, Web Content Accessibility Guidelines 2.1, definition of relative luminance.
    """
    parts = [channel / 255 for channel in _channels(colour)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colours, as WCAG 2 defines it.

    Args:
        first: ``"#rrggbb"``.
        second: ``"#rrggbb"``.

    Returns:
        1 to 21.

    Example:
        >>> contrast("#000000", "#ffffff")
        21.0
    """
    darker, lighter = sorted((relative_luminance(first), relative_luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def ramp(anchors: Sequence[str], count: int) -> list[str]:
    """Colours at equal steps along a line through anchors.

    Args:
        anchors: two or more ``"#rrggbb"``.
        count: how many, at least 2.

    Returns:
        Colours from the first anchor to the last.

    Example:
        >>> ramp(["#000000", "#ffffff"], 3)
        ['#000000', '#808080', '#ffffff']
    """
    colours = []
    for step in range(count):
        place = step * (len(anchors) - 1) / (count - 1)
        left = min(int(place), len(anchors) - 2)
        share = place - left
        pairs = zip(_channels(anchors[left]), _channels(anchors[left + 1]), strict=True)
        mixed = [round(a + (b - a) * share) for a, b in pairs]
        colours.append("#" + "".join(f"{value:02x}" for value in mixed))
    return colours


def variables(dark: bool) -> dict[str, str]:
    """Every CSS variable of a scheme.

    Args:
        dark: which scheme.

    Returns:
        Name without its dashes -> ``"#rrggbb"``. ``q0..`` are the sequential steps, ``d0..`` the
        diverging ones, ``qi`` and ``di`` the ink on each, ``c0..`` the lines.

    Example:
        >>> variables(dark=False)["bg"], variables(dark=True)["c0"]
        ('#ffffff', '#56b4e9')
    """
    result = dict(DARK if dark else LIGHT)
    result |= {f"c{k}": c for k, c in enumerate(_LINES_DARK if dark else _LINES_LIGHT)}
    scales = {
        "q": ramp(_SEQUENTIAL_DARK if dark else _SEQUENTIAL_LIGHT, SEQUENTIAL_BINS),
        "d": ramp(_DIVERGING_DARK if dark else _DIVERGING_LIGHT, DIVERGING_BINS),
    }
    for name, colours in scales.items():
        result |= {f"{name}{k}": colour for k, colour in enumerate(colours)}
        result |= {f"{name}i{k}": _ink(colour) for k, colour in enumerate(colours)}
    return result


def style_sheet() -> str:
    """The variables of both schemes as CSS, and the classes that use them by number.

    Returns:
        CSS text.

    Example:
        >>> ".q0{stroke:var(--q0)}" in style_sheet()
        True
    """
    light, dark = (_declarations(variables(scheme)) for scheme in (False, True))
    rules = [
        f":root{{color-scheme:light dark;{light}}}",
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}",
    ]
    for name, count in (("q", SEQUENTIAL_BINS), ("d", DIVERGING_BINS)):
        for k in range(count):
            rules.append(f".{name}{k}{{stroke:var(--{name}{k})}}")
            rules.append(f".{name}i{k}{{fill:var(--{name}i{k})}}")
    rules += [f".c{k}{{stroke:var(--c{k})}}" for k in range(STYLES)]
    return "\n".join(rules)


def _declarations(values: Mapping[str, str]) -> str:
    return ";".join(f"--{name}:{value}" for name, value in values.items())


def _ink(colour: str) -> str:
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, colour))


def _channels(colour: str) -> tuple[int, int, int]:
    value = int(colour[1:], 16)
    return value >> 16, value >> 8 & 255, value & 255
