"""How the same images are served in every way, and the checks that must be able to fail."""

import itertools
from typing import Any

import pytest
import torch

from benchmarks import robust_defences
from benchmarks.robust_attacks import cross_entropy_of
from benchmarks.robust_defences import (
    AVERAGED,
    CLEAN,
    DENSE,
    DRAWN,
    EXPECTED,
    METHODS,
    OTHER,
    SINGLE,
    SOURCES,
    SURROGATE,
    WHITE_BOX,
    Accuracies,
    Defences,
    attacked,
    check_averages,
    check_budget,
    check_harmless,
    check_strength,
    objectives,
    with_worst_case,
)
from tests.benchmarks_robust.small import images_and_labels, networks

EPS = (0.05, 0.1)


def hit(scores: torch.Tensor, labels: torch.Tensor) -> float:
    return float((scores.argmax(dim=1) == labels).double().mean())


def test_every_method_is_scored_on_what_it_serves() -> None:
    trained, (images, labels) = networks(), images_and_labels()
    defences = Defences(trained, seed=5)
    found = defences.accuracies(images, labels)
    alone = [
        hit(defences.mixture.export(name)(images), labels) for name in defences.mixture.tickets
    ]
    assert found[SINGLE] == pytest.approx(alone[0])
    assert found[OTHER] == pytest.approx(sum(alone[1:]) / 2)
    with torch.no_grad():
        mean = torch.stack([scores(images) for scores in defences.members()]).mean(dim=0)
        assert found[AVERAGED] == pytest.approx(hit(mean, labels))
        assert found[DENSE] == pytest.approx(hit(trained.dense(images), labels))
        for n, name in DRAWN.items():
            again = hit(defences.ensemble(n, seed=5)(images), labels)
            assert found[name] == pytest.approx(again)
    assert set(found) == set(METHODS)


@pytest.mark.parametrize("n", [1, 2])
def test_every_digit_gets_a_draw_of_its_own(n: int) -> None:
    defences, (images, _) = Defences(networks(), seed=0), images_and_labels()
    with torch.no_grad():
        each = torch.stack([scores(images) for scores in defences.members()])
        served = defences.drawing[n](images)
        draws = torch.stack([each[list(d)].mean(0) for d in itertools.combinations(range(3), n)])
    distance = (draws - served).abs().amax(dim=2)  # [draws, digits]
    assert float(distance.amin(dim=0).max()) < 1e-4
    assert len(distance.argmin(dim=0).unique()) == 3


def test_every_attacker_maximises_what_its_name_says() -> None:
    trained, data = networks(), images_and_labels()
    defences = Defences(trained, seed=0)
    found = {
        name: float(value(*data).detach())
        for name, value in objectives(trained, defences.members()).items()
    }
    assert tuple(found) == SOURCES

    def loss(scores: torch.Tensor) -> float:
        return float(torch.nn.functional.cross_entropy(scores, data[1], reduction="sum"))

    with torch.no_grad():
        each = torch.stack([scores(data[0]) for scores in defences.members()])
        pairs = [loss(each[list(d)].mean(0)) for d in itertools.combinations(range(3), 2)]
        expected = {
            SURROGATE: loss(trained.surrogate(data[0])),
            DENSE: loss(trained.dense(data[0])),
            SINGLE: loss(each[0]),
            AVERAGED: loss(each.mean(0)),
            EXPECTED[1]: sum(loss(scores) for scores in each) / 3,
            EXPECTED[2]: sum(pairs) / 3,
        }
    assert found == pytest.approx(expected, rel=1e-4)
    assert len({round(value, 3) for value in found.values()}) == len(SOURCES)


def plausible() -> Accuracies:
    """Accuracies as they should be: the more an attacker knows and may change, the lower."""
    found: Accuracies = {CLEAN: dict.fromkeys(METHODS, 0.95)}
    for radius in EPS:
        for source in SOURCES:
            for attack, lost in (("FGSM", 4), ("PGD", 6)):
                own = {m: 0.95 - lost * radius for m in METHODS if WHITE_BOX.get(m) == source}
                rest = dict.fromkeys(METHODS, 0.95 - lost * radius / 4)
                found[source, attack, radius] = rest | own
    return found


def test_plausible_figures_pass() -> None:
    check_strength(plausible(), EPS, 1000)


@pytest.mark.parametrize("method", list(WHITE_BOX))
@pytest.mark.parametrize(
    ("attack", "source", "radius", "told"),
    [
        ("FGSM", None, 0.1, "FGSM leaves 0.1"),
        ("PGD", SURROGATE, 0.1, "surrogate leaves 0.1"),
        ("PGD", None, 0.05, "a smaller eps leaves 0.1"),
    ],
)
def test_a_weak_white_box_attack_is_found(
    method: str, attack: str, source: str | None, radius: float, told: str
) -> None:
    found = plausible()
    found[source or WHITE_BOX[method], attack, radius][method] = 0.1
    with pytest.raises(AssertionError, match=f"{method}: white-box PGD of eps 0.1.*{told}"):
        check_strength(found, EPS, 1000)


def test_few_digits_may_differ_by_more() -> None:
    found = plausible()
    found[WHITE_BOX[DENSE], "FGSM", 0.1][DENSE] = 0.31  # PGD leaves 0.35
    check_strength(found, EPS, 100)
    with pytest.raises(AssertionError, match=r"FGSM leaves 0\.31"):
        check_strength(found, EPS, 1000)


def test_an_attack_that_helps_is_found() -> None:
    found = plausible()
    for radius in EPS:
        for source in SOURCES:
            for attack in ("FGSM", "PGD"):
                found[source, attack, radius][DENSE] = 0.99
    with pytest.raises(AssertionError, match=r"dense: .*eps 0.05.* a smaller eps leaves 0.95"):
        check_strength(found, EPS, 1000)


def test_figures_that_eps_zero_does_not_give_are_found() -> None:
    trained, data = networks(), images_and_labels()
    objective = cross_entropy_of(trained.surrogate)
    clean = Defences(trained, seed=0).accuracies(*data)
    check_harmless(Defences(trained, seed=0), objective, data, clean)
    with pytest.raises(AssertionError, match="eps 0 should give the clean accuracies"):
        check_harmless(Defences(trained, 0), objective, data, clean | {DENSE: clean[DENSE] - 0.1})


def test_an_attack_that_moves_at_eps_zero_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def moves(objective: Any, images: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        return images.flip(0)

    monkeypatch.setattr(robust_defences, "pgd", moves)
    trained, data = networks(), images_and_labels()
    with pytest.raises(AssertionError, match="an attack of eps 0 changed an image"):
        check_harmless(Defences(trained, 0), cross_entropy_of(trained.dense), data, {})


def test_pixels_out_of_bounds_are_found() -> None:
    images = torch.full((1, 4), 0.95)
    check_budget(images + 0.05, images, 0.05)
    with pytest.raises(AssertionError, match=r"eps is 0\.04"):
        check_budget(images + 0.05, images, 0.04)
    with pytest.raises(AssertionError, match=r"reach from 1\.0"):
        check_budget(images + 0.09, images, 0.1)
    with pytest.raises(AssertionError, match=r"reach from -0\.0"):
        check_budget(images - 0.98, images, 1.0)


def test_a_router_that_does_not_average_all_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    defences, (images, _) = Defences(networks(), seed=0), images_and_labels()
    check_averages(defences, images)
    ensemble = defences.ensemble
    monkeypatch.setattr(defences, "ensemble", lambda n, seed: ensemble(n - 1, seed))
    with pytest.raises(AssertionError, match="a draw of all tickets is"):
        check_averages(defences, images)


@pytest.mark.parametrize(
    "name", ["check_averages", "check_harmless", "check_budget", "check_strength"]
)
def test_a_failed_check_ends_the_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> None:
        raise AssertionError(name)

    monkeypatch.setattr(robust_defences, name, fails)
    with pytest.raises(AssertionError, match=name):
        attacked(networks(), images_and_labels(10), (0.1,), steps=1, seed=0)


def test_the_worst_case_is_each_methods_own() -> None:
    found = plausible()
    found[SURROGATE, "FGSM", 0.05][AVERAGED] = 0.2
    worst = with_worst_case(found)
    assert len(worst) == len(found) + len(EPS)
    assert worst["any", "worst", 0.05] == pytest.approx(
        {**dict.fromkeys(WHITE_BOX, 0.65), AVERAGED: 0.2}
    )
    assert worst["any", "worst", 0.1][DENSE] == pytest.approx(0.35)
