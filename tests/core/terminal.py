"""A terminal in memory: a stream that says it is one, and the screen that would show its text."""

import io
import re
import unicodedata

SEQUENCE = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Screen:
    """What stands on a terminal of a size after some text; what scrolled out at the top is kept."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.height = columns, lines
        self.rows: list[list[str]] = [[]]
        self.x = self.y = 0
        self.cursor_visible = True

    def feed(self, text: str) -> "Screen":
        position = 0
        while position < len(text):
            if found := SEQUENCE.match(text, position):
                self._control(*found.groups())
                position = found.end()
            else:
                self._put(text[position])
                position += 1
        return self

    @property
    def text(self) -> str:
        return "\n".join("".join(row).rstrip() for row in self.rows)

    def _control(self, private: str, number: str, command: str) -> None:
        if command == "m":
            return
        if private:
            assert (number, command) in {("25", "l"), ("25", "h")}, f"unexpected {command}"
            self.cursor_visible = command == "h"
        elif command == "A":
            top = max(len(self.rows) - self.height, 0)
            self.y = max(self.y - int(number or 1), top)
        else:
            assert (command, number) == ("K", "2"), f"unexpected {number}{command}"
            self.rows[self.y] = []

    def _put(self, character: str) -> None:
        if character == "\r":
            self.x = 0
        elif character == "\n":
            self._next_line()
        else:
            assert character.isprintable(), f"unexpected {character!r}"
            width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
            if self.x + width > self.columns:
                self._next_line()
            row = self.rows[self.y]
            row += [" "] * (self.x + width - len(row))
            row[self.x : self.x + width] = [character, *[""] * (width - 1)]
            self.x += width

    def _next_line(self) -> None:
        self.x, self.y = 0, self.y + 1
        if self.y == len(self.rows):
            self.rows.append([])
