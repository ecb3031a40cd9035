"""How alike group names are by WordNet: the path between their meanings, from local files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rtl_plugin.diagnostics.name_similarity import checked_names
from rtl_plugin.diagnostics.similarity import Matrix
from rtl_plugin.diagnostics.wordnet_files import NounFiles, find_database, opened_nouns
from rtl_plugin.errors import InvalidArgument

Database = str | Path | None


@dataclass(frozen=True)
class Sense:
    """The meaning of a name that was compared.

    Args:
        synset: WordNet's name of it, such as ``"crane.n.05"``.
        definition: its gloss.
        looked_up: the word that was looked up: the name itself, or its alias.
    """

    synset: str
    definition: str
    looked_up: str


def wordnet_path_similarity(
    names: Sequence[str],
    database: Database = None,
    aliases: Mapping[str, str] | None = None,
) -> Matrix:
    """Path similarity of group names: ``1 / (1 + edges)`` of the shortest way between two nouns.

    The way goes up from both to a common hypernym, as in nltk's ``path_similarity``. Names without
    a common hypernym get 0; in WordNet all nouns have one. Nothing is downloaded or written.

    Args:
        names: K different group names, in the order of the tickets. Case does not matter,
            underscores and spaces are the same, and a plural finds its singular.
        database: a folder with Princeton's ``data.noun`` and ``index.noun``, or one above it (as
            ``dpkg-deb -x`` leaves it). None looks for Debian's ``wordnet-base``, then for nltk's
            own ``corpora/wordnet``.
        aliases: name -> the word or synset to look up instead, such as
            ``{"maple_tree": "maple.n.02", "crane": "crane.n.05"}``. Without one the sense that
            WordNet lists first is taken, its most frequent in text, and that is often not what a
            data set shows (a tiger is "a fierce or audacious person"): look at
            :func:`wordnet_senses` before you trust a figure.

    Returns:
        float64 array [K, K], in [0, 1], with ones on the diagonal.

    Raises:
        InvalidArgument: a name is no noun in WordNet, or an alias is not of these names.
        InvalidGroups: there is no name, one is not a str or comes twice.
        MissingFile: there is no database; the message says how to get one.
        DamagedFile: the database cannot be read.
        MissingExtra: nltk is not installed.

    Example:
        >>> wordnet_path_similarity(["cat", "dog"], database="/nowhere")
        Traceback (most recent call last):
        rtl_plugin.errors.MissingFile: no WordNet database (data.noun and index.noun) ...

    Source:
        Fellbaum (ed.), WordNet: An Electronic Lexical Database, MIT Press 1998;
        Rada et al., Development and application of a metric on semantic nets, 1989 (the path).
    """
    with _synsets(names, database, aliases) as (nouns, synsets):
        found = list(synsets.values())
        similarity = np.eye(len(found))
        for i, first in enumerate(found):
            for j in range(i):
                similarity[i, j] = similarity[j, i] = nouns.path_similarity(first, found[j])
    result: Matrix = similarity
    return result


def wordnet_senses(
    names: Sequence[str],
    database: Database = None,
    aliases: Mapping[str, str] | None = None,
) -> dict[str, Sense]:
    """Which meaning :func:`wordnet_path_similarity` compares for every name.

    Args:
        names: as for :func:`wordnet_path_similarity`.
        database: likewise.
        aliases: likewise.

    Returns:
        Name -> its sense, in order.

    Raises:
        InvalidArgument: a name is no noun in WordNet, or an alias is not of these names.
        InvalidGroups: there is no name, one is not a str or comes twice.
        MissingFile: there is no database; the message says how to get one.
        DamagedFile: the database cannot be read.
        MissingExtra: nltk is not installed.

    Example:
        >>> wordnet_senses(["cat"], database="/nowhere")
        Traceback (most recent call last):
        rtl_plugin.errors.MissingFile: no WordNet database (data.noun and index.noun) ...
    """
    with _synsets(names, database, aliases) as (_, synsets):
        return {
            name: Sense(synset.name(), synset.definition(), (aliases or {}).get(name, name))
            for name, synset in synsets.items()
        }


@contextmanager
def _synsets(
    names: Sequence[str], database: Database, aliases: Mapping[str, str] | None
) -> Iterator[tuple[NounFiles, dict[str, Any]]]:
    """A database that is open inside the block, and name -> synset."""
    listed = checked_names(names)
    given = _checked_aliases(aliases, listed)
    with opened_nouns(find_database(database)) as nouns:
        found = {name: _synset(nouns, name, given.get(name)) for name in listed}
        missing = [name for name, synset in found.items() if synset is None]
        if missing:
            shown = ", ".join(
                f"{name!r} (by its alias {given[name]!r})" if name in given else repr(name)
                for name in missing
            )
            raise InvalidArgument(
                f"no noun of WordNet: {shown}. Say what to look up instead: "
                f'aliases={{{missing[0]!r}: "another word", ...}}, or a synset such as "crane.n.05"'
            )
        yield nouns, found


def _synset(nouns: NounFiles, name: str, alias: str | None) -> Any:
    if alias is not None and _names_a_synset(alias):
        return nouns.by_synset_name(alias.strip())
    return nouns.first_sense(alias if alias is not None else name)


def _names_a_synset(word: str) -> bool:
    lemma, _, rest = word.strip().rpartition(".n.")
    return bool(lemma) and rest.isdigit()


def _checked_aliases(aliases: Mapping[str, str] | None, names: list[str]) -> dict[str, str]:
    if aliases is None:
        return {}
    if not isinstance(aliases, Mapping):
        raise InvalidArgument(f"aliases must map names to words, got {type(aliases).__name__}")
    for name, word in aliases.items():
        if name not in names:
            raise InvalidArgument(
                f"aliases: {name!r} is none of the names {names[:6]}: correct or drop it"
            )
        if not isinstance(word, str) or not word.strip():
            raise InvalidArgument(f"aliases[{name!r}] must be a word or a synset, got {word!r}")
        _, _, number = word.strip().rpartition(".")
        if number.isdigit() and "." in word and not _names_a_synset(word):
            raise InvalidArgument(
                f"aliases[{name!r}]: {word!r} is no noun; a synset of a noun reads 'crane.n.05'"
            )
    return dict(aliases)
