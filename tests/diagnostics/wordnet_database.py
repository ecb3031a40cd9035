"""A tiny WordNet in the true file format: nouns only, with correct byte offsets."""

from dataclasses import dataclass
from pathlib import Path

HEADER = "  1 This software and database is made for a test.  \n  2 It has a few nouns.  \n"


@dataclass(frozen=True)
class Noun:
    """A synset: its words (the first names it), its hypernyms' first words, its gloss."""

    words: tuple[str, ...]
    above: tuple[str, ...]
    gloss: str = "a thing"


# Edges: cat-feline-carnivore-canine-dog, so 4 from cat to dog and 1 / 5 of similarity.
NOUNS = (
    Noun(("entity",), ()),
    Noun(("animal", "beast"), ("entity",)),
    Noun(("carnivore",), ("animal",)),
    Noun(("feline",), ("carnivore",)),
    Noun(("cat", "true_cat"), ("feline",), "a purring animal; “mew”"),
    Noun(("canine",), ("carnivore",)),
    Noun(("dog",), ("canine", "pet")),
    Noun(("pet",), ("entity",)),
    Noun(("artifact",), ("entity",)),
    Noun(("vehicle",), ("artifact",)),
    Noun(("truck", "motor-truck"), ("vehicle",)),
    Noun(("pickup_truck",), ("truck",)),
    Noun(("t-shirt",), ("artifact",)),
    Noun(("ox",), ("animal",)),
    Noun(("Crane",), ("entity",), "a writer"),
    Noun(("crane",), ("animal",), "a wading bird"),
    Noun(("nowhere",), (), "no part of the tree"),
)


def write_database(folder: Path, nouns: tuple[Noun, ...] = NOUNS) -> Path:
    """Write data.noun, index.noun and noun.exc; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    first = {noun.words[0]: number for number, noun in reversed(list(enumerate(nouns)))}
    offsets = [0] * len(nouns)
    for _ in range(2):  # an offset has eight digits always, so one pass finds them all
        lines = [_line(noun, offsets, number, first) for number, noun in enumerate(nouns)]
        position = len(HEADER.encode())
        for number, line in enumerate(lines):
            offsets[number], position = position, position + len(line.encode())
    (folder / "data.noun").write_bytes((HEADER + "".join(lines)).encode())
    senses: dict[str, list[int]] = {}
    for number, noun in enumerate(nouns):
        for word in noun.words:
            senses.setdefault(word.lower(), []).append(offsets[number])
    index = "".join(
        f"{word} n {len(own)} 1 @ {len(own)} 0 {' '.join(f'{o:08d}' for o in own)}  \n"
        for word, own in sorted(senses.items())
    )
    (folder / "index.noun").write_bytes((HEADER + index).encode())
    (folder / "noun.exc").write_bytes(b"oxen ox\n")
    return folder


def _line(noun: Noun, offsets: list[int], number: int, first: dict[str, int]) -> str:
    words = " ".join(f"{word} 0" for word in noun.words)
    above = "".join(f"@ {offsets[first[word]]:08d} n 0000 " for word in noun.above)
    return (
        f"{offsets[number]:08d} 03 n {len(noun.words):02x} {words} {len(noun.above):03d} {above}"
        f"| {noun.gloss}  \n"
    )
