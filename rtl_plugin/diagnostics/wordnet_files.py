"""WordNet's noun files: finding them, and reading them through nltk where they lie."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rtl_plugin.errors import DamagedFile, InvalidArgument, MissingFile
from rtl_plugin.extras import require

DEBIAN = Path("/usr/share/wordnet")  # where Debian's wordnet-base puts the files
_NEEDED = ("data.noun", "index.noun")
_READ = (*_NEEDED, "noun.exc")  # the last lists irregular plurals, and may be absent
_BELOW = ("", "dict", "usr/share/wordnet", "corpora/wordnet")
_PURPOSE = "reading WordNet"
# What nltk raises on lines that it cannot parse; StopIteration where one ends too early.
_UNREADABLE = (ValueError, LookupError, StopIteration, AssertionError, OSError)


def find_database(database: str | Path | None = None, debian: Path = DEBIAN) -> Path:
    """The folder that holds WordNet's noun files.

    Args:
        database: a folder with ``data.noun`` and ``index.noun``, or one that has them in ``dict``,
            ``usr/share/wordnet`` or ``corpora/wordnet``; None looks in the usual places.
        debian: where Debian's package puts them.

    Returns:
        The folder itself.

    Raises:
        InvalidArgument: ``database`` is no path.
        MissingFile: there is none; the message says where it was sought and how to get one.
        MissingExtra: nltk is not installed.

    Example:
        >>> find_database("/nowhere")
        Traceback (most recent call last):
        rtl_plugin.errors.MissingFile: no WordNet database (data.noun and index.noun) ...
    """
    if database is not None and not isinstance(database, (str, Path)):
        raise InvalidArgument(f"database must be a folder or None, got {database!r}")
    if database is not None:
        above = [Path(database).expanduser()]
    else:
        data = require("nltk.data", "semantics", _PURPOSE)
        above = [debian, *(Path(str(folder)) for folder in data.path if folder)]
    for folder in (top / below for top in above for below in _BELOW):
        if all((folder / name).is_file() for name in _NEEDED):
            return folder.resolve()
    raise MissingFile(
        f"no WordNet database (data.noun and index.noun) in {', '.join(map(str, above))} (nor in "
        "dict, usr/share/wordnet or corpora/wordnet below). Get one with `apt-get install "
        "wordnet-base`, or without installing by `apt-get download wordnet-base && dpkg-deb -x "
        'wordnet-base_*.deb wordnet` and database="wordnet", or pass database= the dict folder of '
        "Princeton's WordNet 3.0"
    )


class NounFiles:
    """An open database of nouns; made by :func:`opened_nouns`.

    Args:
        reader: nltk's reader over the folder.
        folder: for messages.
    """

    def __init__(self, reader: Any, folder: Path) -> None:
        self._reader, self._folder = reader, folder

    def first_sense(self, word: str) -> Any:
        """The first synset that WordNet lists for a noun, or None.

        Args:
            word: spaces, underscores and (where nothing is found) hyphens are the same.
        """
        joined = "_".join(word.lower().replace("_", " ").split())
        for lemma in dict.fromkeys((joined, joined.replace("-", "_"))):
            with _damage(self._folder):
                found = self._reader.synsets(lemma, pos="n")
            if found:
                return found[0]
        return None

    def path_similarity(self, first: Any, second: Any) -> float:
        """``1 / (1 + edges)`` of the shortest way over a common hypernym; 0 where there is none.

        Args:
            first: a synset of this database.
            second: another.
        """
        with _damage(self._folder):
            # No simulated root: it would call unconnected nouns alike.
            alike = first.path_similarity(second, simulate_root=False)
        return 0.0 if alike is None else float(alike)

    def by_synset_name(self, name: str) -> Any:
        """The synset of a name such as ``"crane.n.05"``, or None.

        Args:
            name: lemma, ``.n.`` and the number of the sense.
        """
        spelled, _, number = name.lower().rpartition(".n.")
        lemma = "_".join(spelled.split())
        with _damage(self._folder):
            senses = self._reader.synsets(lemma, pos="n", check_exceptions=False)
        # nltk also looks under the lemma's base forms; its own synset() counts the lemma's alone.
        own = [s for s in senses if lemma in (each.lower() for each in s.lemma_names())]
        return own[int(number) - 1] if 0 < int(number) <= len(own) else None


@contextmanager
def opened_nouns(folder: Path) -> Iterator[NounFiles]:
    """Read a folder's nouns through nltk for a block, and leave nltk as it was.

    Args:
        folder: from :func:`find_database`; nothing is written to it.

    Returns:
        The open nouns; synsets can be asked for their hypernyms inside the block only.

    Raises:
        DamagedFile: the files cannot be read as WordNet's.
        MissingExtra: nltk is not installed.
    """
    data = require("nltk.data", "semantics", _PURPOSE)
    allowed = str(folder)
    # nltk opens nothing outside its data path, and says that this is how to allow a folder.
    data.path.append(allowed)
    streams: dict[str, Any] = {}
    try:
        with _damage(folder):
            # Not None, at which nltk warns that it has no other languages.
            reader = _reader_class(folder, streams)(allowed, False)
        yield NounFiles(reader, folder)
    finally:
        for stream in streams.values():
            stream.close()
        # The last of equal entries is ours, or that of another thread in the same block.
        del data.path[len(data.path) - 1 - data.path[::-1].index(allowed)]


def _reader_class(folder: Path, streams: dict[str, Any]) -> Any:
    """A reader of nouns alone: Debian's package lacks files that others need and nouns do not."""
    base = require("nltk.corpus.reader.wordnet", "semantics", _PURPOSE).WordNetCorpusReader

    class NounReader(base):  # type: ignore[misc, valid-type]
        def open(self, file: str) -> Any:
            if file == "lexnames":  # names of the editors' files, of which a synset gives a number
                return io.StringIO("".join(f"{number} {number:02d} 1\n" for number in range(100)))
            if file not in _READ or not (folder / file).is_file():
                return io.StringIO("")
            if file not in streams:
                streams[file] = super().open(file)
            return streams[file]

        def map_wn(self, version: str = "wordnet") -> None:
            """No map to other versions: it serves other languages, and needs index.sense."""

        def synset_from_pos_and_offset(self, pos: str, offset: int) -> Any:
            found = super().synset_from_pos_and_offset(pos, offset) if self._is_at(offset) else None
            if found is None:
                raise ValueError(f"there is no synset at byte {offset} of data.noun")
            return found

        def _is_at(self, offset: int) -> bool:
            """Whether a synset begins there; nltk only warns where none does."""
            stream = self.open("data.noun")
            stream.seek(offset)
            return bool(stream.readline().startswith(f"{offset:08d} "))

    return NounReader


@contextmanager
def _damage(folder: Path) -> Iterator[None]:
    wordnet_error = require("nltk.corpus.reader.wordnet", "semantics", _PURPOSE).WordNetError
    try:
        yield
    except (*_UNREADABLE, wordnet_error) as error:
        raise DamagedFile(
            f"the WordNet database in {folder} cannot be read ({type(error).__name__}: {error}): "
            "mend what it says, or unpack Princeton's database again"
        ) from error
