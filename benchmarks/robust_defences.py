"""Who is attacked, who attacks, and what must hold for the figures to mean anything."""

from collections.abc import Mapping

import torch

import rtl_plugin as rtl
from benchmarks.robust_attacks import (
    Objective,
    Scores,
    cross_entropy_of,
    expectation_over_draws,
    fgsm,
    pgd,
)
from benchmarks.robust_networks import Labelled, Networks
from rtl_plugin.evaluation import top1_accuracy

SINGLE, OTHER, AVERAGED, DENSE = "single ticket", "another ticket", "all averaged", "dense"
DRAWS = (1, 2)
DRAWN = {n: f"random draw of {n}" for n in DRAWS}
METHODS = (SINGLE, OTHER, AVERAGED, *DRAWN.values(), DENSE)
SURROGATE = "surrogate"
EXPECTED = {n: f"expectation over draws of {n}" for n in DRAWS}
SOURCES = (SURROGATE, DENSE, SINGLE, AVERAGED, *EXPECTED.values())
STRANGERS = (SURROGATE, DENSE)  # know no ticket, so their attacks are transferred to all of them
# Whose gradients are the served network's own; for random draws, as close as an attacker gets.
WHITE_BOX = {SINGLE: SINGLE, AVERAGED: AVERAGED, DENSE: DENSE} | {
    DRAWN[n]: EXPECTED[n] for n in DRAWS
}
CLEAN = ("none", "none", 0.0)
Case = tuple[str, str, float]  # whose gradients, which attack, eps
Accuracies = dict[Case, dict[str, float]]
STRATEGY = "slices"  # timed choices could differ from run to run, and with them the last bits


class Defences:
    """Serves the same images in every way that is compared.

    Args:
        networks: of one seed.
        seed: of the random draws.
    """

    def __init__(self, networks: Networks, seed: int) -> None:
        self._networks = networks
        self.mixture = rtl.MixtureOfMasks(networks.model, networks.tickets, strategy=STRATEGY)
        self.drawing = {n: self.ensemble(n, seed) for n in DRAWS}

    def ensemble(self, n: int, seed: int) -> rtl.MixtureOfMasks:
        """A mixture whose every digit is a request of its own: n tickets, drawn and averaged."""
        tickets = self._networks.tickets
        router = rtl.StochasticEnsembleRouter(tickets, n, seed, per="sample")
        return rtl.MixtureOfMasks(self._networks.model, tickets, router, strategy=STRATEGY)

    def members(self) -> list[Scores]:
        """The tickets one by one, with gradients to the images."""

        def member(name: str) -> Scores:
            return lambda images: self.mixture(images, tickets=name)

        return [member(name) for name in self.mixture.tickets]

    def accuracies(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Accuracy of every method; of "another ticket" the mean over all but the first."""
        with torch.no_grad():
            each = torch.stack([scores(images) for scores in self.members()])
            found = {
                AVERAGED: each.mean(dim=0),
                **{DRAWN[n]: mixture(images) for n, mixture in self.drawing.items()},
                DENSE: self._networks.dense(images),
            }
        alone = [top1_accuracy(scores.numpy(), labels.numpy()) for scores in each]
        shared = {
            name: top1_accuracy(scores.numpy(), labels.numpy()) for name, scores in found.items()
        }
        return {SINGLE: alone[0], OTHER: sum(alone[1:]) / len(alone[1:]), **shared}


def objectives(networks: Networks, members: list[Scores]) -> dict[str, Objective]:
    """What each attacker maximises, by the name of whose gradients it has."""
    return {
        SURROGATE: cross_entropy_of(networks.surrogate),
        DENSE: cross_entropy_of(networks.dense),
        SINGLE: cross_entropy_of(members[0]),
        AVERAGED: expectation_over_draws(members, len(members)),
        **{EXPECTED[n]: expectation_over_draws(members, n) for n in DRAWS},
    }


def attacked(
    networks: Networks, data: Labelled, eps: tuple[float, ...], steps: int, seed: int
) -> Accuracies:
    """Accuracy of every method on clean images and under every attack.

    Args:
        networks: of one seed.
        data: images and labels.
        eps: radii in units of [0, 1].
        steps: of PGD.
        seed: of draws and random starts.

    Returns:
        (source, attack, eps) -> method -> accuracy.

    Raises:
        AssertionError: an attack is not one, see the checks of this module.
    """
    defences = Defences(networks, seed)
    against = objectives(networks, defences.members())
    found: Accuracies = {CLEAN: defences.accuracies(*data)}
    check_averages(defences, data[0])
    for source, objective in against.items():
        check_harmless(Defences(networks, seed), objective, data, found[CLEAN])
        for radius in eps:
            crafted = {
                "FGSM": fgsm(objective, *data, radius),
                "PGD": pgd(objective, *data, radius, steps=steps, seed=seed),
            }
            for attack, images in crafted.items():
                check_budget(images, data[0], radius)
                found[source, attack, radius] = defences.accuracies(images, data[1])
    check_strength(found, eps, len(data[1]))
    return found


def check_averages(defences: Defences, images: torch.Tensor) -> None:
    """A router that draws all tickets gives their plain mean."""
    with torch.no_grad():
        routed = defences.ensemble(len(defences.mixture.tickets), seed=0)(images)
        mean = torch.stack([scores(images) for scores in defences.members()]).mean(dim=0)
    off = float((routed - mean).abs().max())
    if off > 1e-4:
        raise AssertionError(f"a draw of all tickets is {off} from their mean, at most 1e-4")


def check_harmless(
    defences: Defences, objective: Objective, data: Labelled, clean: Mapping[str, float]
) -> None:
    """Attacks of eps 0 change no image, so every accuracy is the clean one.

    The defences must be fresh: the same draws as for the clean images then come again.
    """
    images, labels = data
    crafted = fgsm(objective, images, labels, 0.0), pgd(objective, images, labels, 0.0, steps=1)
    if not all(torch.equal(one, images) for one in crafted):
        raise AssertionError("an attack of eps 0 changed an image")
    found = defences.accuracies(crafted[1], labels)
    if found != clean:
        raise AssertionError(f"eps 0 should give the clean accuracies {clean}, got {found}")


def check_budget(crafted: torch.Tensor, images: torch.Tensor, eps: float) -> None:
    """No pixel is further than eps from its image, or outside [0, 1]."""
    far = float((crafted - images).abs().max())
    if far > eps + 1e-6 or crafted.min() < 0 or crafted.max() > 1:
        raise AssertionError(
            f"crafted images reach from {crafted.min()} to {crafted.max()} and {far} from the "
            f"originals: eps is {eps}"
        )


def check_strength(found: Accuracies, eps: tuple[float, ...], digits: int) -> None:
    """White-box PGD is stronger than FGSM, than smaller radii, and than whoever knows no ticket.

    Anything else would mean that gradients are masked and that the figures flatter the defence.
    Random draws and starts move a share of N digits by up to 1 / sqrt(N), two standard deviations.
    """
    slack = digits**-0.5
    for method, own in WHITE_BOX.items():
        before = found[CLEAN][method]
        for radius in sorted(eps):
            strongest = found[own, "PGD", radius][method]
            rivals = {source: found[source, "PGD", radius][method] for source in STRANGERS}
            rivals |= {"FGSM": found[own, "FGSM", radius][method], "a smaller eps": before}
            for rival, accuracy in rivals.items():
                if strongest > accuracy + slack:
                    raise AssertionError(
                        f"{method}: white-box PGD of eps {radius} leaves {strongest}, but "
                        f"{rival} leaves {accuracy}: its gradients are masked or PGD is wrong"
                    )
            before = strongest


def with_worst_case(found: Accuracies) -> Accuracies:
    """Add, for every radius, what each method keeps under the attack that hurts it most.

    "Another ticket" has no such figure: nobody attacks it with its own gradients here.
    """
    worst: Accuracies = {}
    for radius in dict.fromkeys(case[2] for case in found if case != CLEAN):
        cases = [accuracy for case, accuracy in found.items() if case[2] == radius]
        worst["any", "worst", radius] = {
            method: min(case[method] for case in cases) for method in METHODS if method in WHITE_BOX
        }
    return found | worst
