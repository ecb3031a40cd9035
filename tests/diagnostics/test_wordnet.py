"""WordNet path similarity on a tiny database, by hand; nltk and the folder are left alone."""

import sys
import threading
from pathlib import Path

import nltk
import numpy as np
import pytest

from rtl_plugin.diagnostics.wordnet import Sense, wordnet_path_similarity, wordnet_senses
from rtl_plugin.diagnostics.wordnet_files import find_database
from rtl_plugin.errors import (
    DamagedFile,
    InvalidArgument,
    InvalidGroups,
    MissingExtra,
    MissingFile,
)
from tests.diagnostics.wordnet_database import NOUNS, Noun, write_database


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return write_database(tmp_path / "wordnet")


def test_path_similarity_by_hand(database: Path) -> None:
    found = wordnet_path_similarity(["cat", "dog", "truck", "feline", "nowhere"], database)
    assert found.dtype == np.float64
    # Edges: cat-dog 4 by carnivore; cat-truck 4 + 3 by entity; dog-truck 2 + 3, by pet and entity.
    expected = [
        [1, 1 / 5, 1 / 8, 1 / 2, 0],
        [1 / 5, 1, 1 / 6, 1 / 4, 0],
        [1 / 8, 1 / 6, 1, 1 / 7, 0],
        [1 / 2, 1 / 4, 1 / 7, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "synset"),
    [
        ("cat", "cat.n.01"),
        ("True Cat", "cat.n.01"),
        ("  pickup truck ", "pickup_truck.n.01"),
        ("PICKUP_TRUCK", "pickup_truck.n.01"),
        ("pickup-truck", "pickup_truck.n.01"),
        ("T-shirt", "t-shirt.n.01"),
        ("motor-truck", "truck.n.01"),
        ("dogs", "dog.n.01"),
        ("oxen", "ox.n.01"),
        ("crane", "crane.n.01"),
        ("beast", "animal.n.01"),
    ],
)
def test_names_find_their_first_sense(database: Path, name: str, synset: str) -> None:
    assert wordnet_senses([name], database)[name].synset == synset


def test_what_was_chosen_is_told(database: Path) -> None:
    aliases = {"mew": "cat", "bird": "crane.n.02"}
    assert wordnet_senses(["mew", "bird", "dog"], database, aliases) == {
        "mew": Sense("cat.n.01", "a purring animal; “mew”", "cat"),
        "bird": Sense("crane.n.02", "a wading bird", "crane.n.02"),
        "dog": Sense("dog.n.01", "a thing", "dog"),
    }


def test_an_alias_changes_the_similarity(database: Path) -> None:
    names = ["cat", "crane"]
    assert wordnet_path_similarity(names, database)[0, 1] == 1 / 6
    assert wordnet_path_similarity(names, database, {"crane": "crane.n.02"})[0, 1] == 1 / 5
    assert wordnet_path_similarity(names, database, {"crane": "cat"})[0, 1] == 1.0


@pytest.mark.parametrize("alias", ["crane.n.03", "crane.n.00", "cranes.n.01", "unicorn"])
def test_an_alias_that_is_not_there(database: Path, alias: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"'crane' \(by its alias '{alias}'\)"):
        wordnet_senses(["crane"], database, {"crane": alias})


def test_names_that_are_not_there_are_all_told_with_the_remedy(database: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"'maple_tree', 'aquarium_fish'.*aliases=\{'maple_"):
        wordnet_path_similarity(["cat", "maple_tree", "aquarium_fish"], database)


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        ({"dog": "cat"}, "'dog' is none of the names"),
        ({"cat": ""}, "must be a word or a synset"),
        ({"cat": 3}, "must be a word or a synset"),
        ({"cat": "run.v.01"}, "'run.v.01' is no noun"),
        (["cat"], "aliases must map names to words"),
    ],
)
def test_bad_aliases(database: Path, aliases: object, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        wordnet_senses(["cat"], database, aliases)  # type: ignore[arg-type]


def test_bad_names(database: Path) -> None:
    with pytest.raises(InvalidArgument, match="the one str 'cat'"):
        wordnet_path_similarity("cat", database)
    with pytest.raises(InvalidGroups, match="'cat' comes twice"):
        wordnet_path_similarity(["cat", "cat"], database)
    with pytest.raises(InvalidGroups, match="got 3 of type int"):
        wordnet_path_similarity([3], database)  # type: ignore[list-item]


@pytest.mark.parametrize("below", ["dict", "usr/share/wordnet", "corpora/wordnet"])
def test_a_folder_above_the_files_will_do(tmp_path: Path, below: str) -> None:
    write_database(tmp_path / below)
    assert wordnet_path_similarity(["cat", "dog"], str(tmp_path))[0, 1] == 0.2


def test_without_a_folder_debian_comes_first_and_nltk_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "none"), str(tmp_path / "nltk_data")])
    debian = tmp_path / "debian"
    with pytest.raises(MissingFile, match=r"apt-get install wordnet-base.*dpkg-deb -x"):
        find_database(debian=debian)
    corpus = write_database(tmp_path / "nltk_data" / "corpora" / "wordnet")
    assert find_database(debian=debian) == corpus.resolve()
    write_database(debian)
    assert find_database(debian=debian) == debian.resolve()


def test_a_folder_without_the_files_is_not_replaced_by_another(database: Path) -> None:
    (database / "index.noun").unlink()
    with pytest.raises(MissingFile, match=r"data\.noun and index\.noun"):
        wordnet_path_similarity(["cat", "dog"], database)
    with pytest.raises(InvalidArgument, match="database must be a folder"):
        wordnet_path_similarity(["cat", "dog"], 3)  # type: ignore[arg-type]


def test_nothing_is_written_and_nltk_is_left_as_it_was(database: Path) -> None:
    before = {path.name: path.read_bytes() for path in database.iterdir()}
    paths = list(nltk.data.path)
    wordnet_path_similarity(["cat", "dog"], database)
    with pytest.raises(InvalidArgument):
        wordnet_path_similarity(["cat", "unicorn"], database)
    assert nltk.data.path == paths
    assert {path.name: path.read_bytes() for path in database.iterdir()} == before


def test_the_users_own_entry_of_the_folder_keeps_its_place(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [str(database.resolve()), "/somewhere/else"]
    monkeypatch.setattr(nltk.data, "path", list(own))
    wordnet_path_similarity(["cat", "dog"], database)
    assert nltk.data.path == own


def test_two_threads_may_read_at_once(database: Path) -> None:
    paths, found = list(nltk.data.path), []
    threads = [
        threading.Thread(
            target=lambda: found.append(wordnet_path_similarity(["cat", "dog"], database)[0, 1])
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [0.2] * 4
    assert nltk.data.path == paths


def damaged_offset(database: Path) -> None:
    path = database / "data.noun"
    path.write_bytes(path.read_bytes().replace(b"a test.", b"a longer test."))


def damaged_index(database: Path) -> None:
    path = database / "index.noun"
    path.write_bytes(path.read_bytes().replace(b"cat n 1 1", b"cat n one 1"))


def short_index(database: Path) -> None:
    (database / "index.noun").write_text("cat n 1\n")


def damaged_synset(database: Path) -> None:
    path = database / "data.noun"
    path.write_bytes(path.read_bytes().replace(b"01 feline", b"zz feline"))


def not_text(database: Path) -> None:
    (database / "index.noun").write_bytes(b"\xff\xfe\x00cat n 1")


@pytest.mark.parametrize(
    "damage", [damaged_offset, damaged_index, short_index, damaged_synset, not_text]
)
def test_a_damaged_database_is_refused(database: Path, damage: object) -> None:
    paths = list(nltk.data.path)
    damage(database)  # type: ignore[operator]
    with pytest.raises(DamagedFile, match="cannot be read"):
        wordnet_path_similarity(["cat", "dog"], database)
    assert nltk.data.path == paths


def test_irregular_plurals_may_be_absent(database: Path) -> None:
    (database / "noun.exc").unlink()
    assert wordnet_senses(["dogs"], database)["dogs"].synset == "dog.n.01"
    with pytest.raises(InvalidArgument, match="'oxen'"):
        wordnet_senses(["oxen"], database)


def test_without_nltk_the_extra_is_named(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk.data", None)
    with pytest.raises(MissingExtra, match=r"pip install 'rtl-plugin\[semantics\]'"):
        wordnet_path_similarity(["cat", "dog"], database)


def test_the_tiny_database_has_the_offsets_that_it_says(database: Path) -> None:
    content = (database / "data.noun").read_bytes()
    lines = [line for line in content.splitlines(keepends=True) if not line.startswith(b"  ")]
    assert len(lines) == len(NOUNS)
    for line in lines:
        assert content.index(line) == int(line[:8])


def test_a_cycle_of_hypernyms_ends(tmp_path: Path) -> None:
    nouns = (Noun(("hen",), ("egg",)), Noun(("egg",), ("hen",)), Noun(("stone",), ()))
    found = wordnet_path_similarity(["hen", "egg", "stone"], write_database(tmp_path, nouns))
    np.testing.assert_array_equal(found, [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])
