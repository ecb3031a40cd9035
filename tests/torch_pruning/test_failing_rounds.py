"""What can go wrong in a round, and what its message says."""

from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import DataGroups
from rtl_plugin.errors import InvalidGroups, InvalidImportance, PruningFailed, RtlError
from tests.discovery.setups import same_bits, tensors_of
from tests.models import CLASSES
from tests.torch_pruning.setups import batches, cross_entropy, pruner_of, run_all, trained_pruner
from tests.torch_pruning.zoo import CONV_BN, MULTIHEAD, Net, head_only, images

EMPTYING: dict[str, dict[str, Any]] = {
    "local": {"pruning_ratio": 0.95},
    "global": {"pruning_ratio": 0.5, "global_pruning": True},
    "round_to": {"pruning_ratio": 0.3, "round_to": 8},
}


def plain_magnitude(group: Any) -> torch.Tensor:
    return group[0].dep.target.module.weight.detach().flatten(1).norm(dim=1)


def emptying(how: str, **others: Any) -> Any:
    def made() -> Any:
        model = CONV_BN.build()
        with torch.no_grad():
            model.parts[0].weight.mul_(1e-4)
        return model

    net = Net("unequal", made, images)
    return pruner_of(net, net.build(), plain_magnitude, **EMPTYING[how], **others)


@pytest.mark.parametrize("how", EMPTYING)
def test_layers_that_would_vanish(how: str) -> None:
    pruner = emptying(how)
    before = tensors_of(pruner.model)
    message = (
        r"cutting (8|12) channels of 'parts\.[03]'.* would leave a layer of its group without any: "
    )
    with pytest.raises(PruningFailed, match=message + "lower pruning_ratio.*on_vanishing='keep'"):
        pruner.step()
    assert same_bits(tensors_of(pruner.model), before)
    if how == "round_to":
        with pytest.raises(PruningFailed, match=r"\(rounding to multiples of 8\)"):
            pruner.step()


@pytest.mark.parametrize("how", ["global", "round_to"])
def test_layers_that_would_vanish_are_kept(how: str) -> None:
    pruner = emptying(how, on_vanishing="keep")
    report = pruner.step()
    for row in report.rows:
        assert row.left_whole == ("parts.0",)
        assert row.widths["parts.0"] == (8, 8)
        assert row.widths["parts.3"][0] < 12
    assert pruner.tickets.history[0]["left_whole"] == ["parts.0"]


def test_layers_left_whole_are_noted_for_their_own_group() -> None:
    def train(network: Any, group: Any, round: int) -> None:
        with torch.no_grad():
            network.parts[0].weight.mul_(1e-4 if group.name == "a" else 2)

    settings: dict[str, Any] = {**EMPTYING["global"], "on_vanishing": "keep", "train": train}
    pruner = pruner_of(CONV_BN, CONV_BN.build(), plain_magnitude, **settings)
    report = pruner.step()
    assert report["a"].left_whole == ("parts.0",)
    assert report["b"].left_whole == ()


def test_all_layers_kept() -> None:
    pruner = emptying("local", on_vanishing="keep", pruning_ratio_dict={})
    with pytest.raises(PruningFailed, match=r"nothing was cut, .*left whole: .*parts\.0"):
        pruner.step()


BAD_SCORES: dict[str, tuple[Any, str]] = {
    "NaN": (lambda n: torch.full((n,), float("nan")), "scores of .* that are NaN or infinite"),
    "infinite": (lambda n: torch.full((n,), float("inf")), "NaN or infinite"),
    "long": (lambda n: torch.rand(n + 1), r"one score a channel .* shape \(12,\), got \(13,\)"),
    "two dimensions": (lambda n: torch.rand(n, 1), r"got \(12, 1\)"),
    "scalar": (lambda n: torch.rand(()), r"got \(\)"),
    "list": (lambda n: [0.5] * n, r"one score a channel of 'parts\.3', a tensor .* got list"),
    "number": (lambda n: 0.5, "got float"),
}


@pytest.mark.parametrize("case", BAD_SCORES)
def test_scores_that_are_none(case: str) -> None:
    scores, message = BAD_SCORES[case]
    pruner = pruner_of(CONV_BN, CONV_BN.build(), lambda group: scores(len(group[0].idxs)))
    with pytest.raises(InvalidImportance, match=message):
        pruner.step()


def test_no_scores_for_any_group() -> None:
    pruner = pruner_of(CONV_BN, CONV_BN.build(), lambda group: None)
    with pytest.raises(PruningFailed, match=r"nothing was cut, 0\.0% .* 50\.0% were asked for"):
        pruner.step()


def test_no_scores_for_one_group() -> None:
    """The host leaves such layers alone, and so do we."""

    def scores(group: Any) -> Any:
        channels = len(group[0].idxs)
        return None if channels == 8 else torch.arange(channels).float()

    pruner = pruner_of(CONV_BN, CONV_BN.build(), scores)
    pruner.step()
    assert pruner.channels("a") == {"parts.3": [*range(6, 12)], "parts.4": [*range(6, 12)]}


class Empty:
    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Any:
        return iter(())


def test_a_group_without_batches() -> None:
    with pytest.raises(
        InvalidGroups, match="train loader of group 'b' is empty, expected at least"
    ):
        DataGroups.from_loaders({"a": batches(CONV_BN, "a"), "b": Empty()})


class RunsDry:
    """Says that it has batches, and gives none."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Any:
        return iter(())


@pytest.mark.parametrize("gradients", [False, True])
def test_a_group_that_runs_dry(gradients: bool) -> None:
    groups = DataGroups.from_loaders({"b": RunsDry()})

    def scores(group: Any) -> torch.Tensor:
        return plain_magnitude(group)

    scores.needs_gradients = gradients  # type: ignore[attr-defined]
    settings: dict[str, Any] = {"loss": cross_entropy, "groups": groups}
    if gradients:
        pruner = pruner_of(CONV_BN, CONV_BN.build(), scores, **settings)
    else:
        pruner = trained_pruner(CONV_BN, CONV_BN.build(), scores, **settings)
    with pytest.raises(RtlError, match="batch"):
        pruner.step()


class Stale(nn.Module):
    """Its forward relies on a width that it keeps as a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.unrelated = 8, 5
        self.conv = nn.Conv2d(2, 8, 3)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).mean(dim=(2, 3))
        return self.head(x.view(-1, self.width))


STALE = Net("stale", Stale, images, head_only)


def test_a_stale_attribute_is_suspected() -> None:
    pruner = pruner_of(STALE, STALE.build())
    message = r"group 'a', round 1: the cut Stale does not run any more .*fix_attributes=.*"
    with pytest.raises(PruningFailed, match=message + r"suspects: width=8 of Stale") as caught:
        pruner.step()
    assert "unrelated" not in str(caught.value)


def test_a_stale_attribute_is_set() -> None:
    def fix(network: Any) -> None:
        network.width = network.conv.out_channels

    model = STALE.build()
    pruner = run_all(pruner_of(STALE, model, fix_attributes=fix, iterative_steps=2))
    assert (pruner.compact("a").width, model.width) == (4, 8)
    assert pruner.tickets["a"].channels.attributes[""] == {"width": 4}


class Reshaping(Stale):
    """A second output that the graph does not see, which becomes narrower."""

    def forward(self, x: torch.Tensor) -> Any:
        x = self.conv(x).mean(dim=(2, 3))
        return self.head(x), x.detach()


def test_outputs_of_another_shape() -> None:
    net = Net("reshaping", Reshaping, images, head_only)
    pruner = pruner_of(net, net.build())
    message = r"outputs from shapes \[\(2, 3\), \(2, 8\)\] to \[\(2, 3\), \(2, 4\)\]: add"
    with pytest.raises(PruningFailed, match=message):
        pruner.step()


def test_heads_that_do_not_divide_the_width() -> None:
    pruner = pruner_of(MULTIHEAD, MULTIHEAD.build(), pruning_ratio=0.3, round_to=None)
    with pytest.raises(PruningFailed, match=r"the cut Multihead does not run any more .*num_heads"):
        pruner.step()
