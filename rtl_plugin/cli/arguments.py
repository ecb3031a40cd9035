"""Types of command-line arguments, checked before anything runs."""

import argparse
import textwrap

WIDTH = 78  # argparse leaves two columns of an 80-column terminal free


def at_least_one(text: str) -> int:
    """A whole number of at least 1.

    Args:
        text: what stands on the command line.

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: it is none; argparse prints the message and ends with code 2.

    Example:
        >>> at_least_one("3")
        3
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return number


def wrapped(text: str) -> str:
    """A paragraph broken into lines, for help that argparse prints as it is.

    Args:
        text: one paragraph.

    Returns:
        The same words in lines of at most 78 columns.

    Example:
        >>> max(map(len, wrapped("word " * 100).splitlines())) <= 78
        True
    """
    return textwrap.fill(text, WIDTH)
