"""What a loss may read of the model it is given, always masked, and what it is refused."""

import copy

import pytest
import torch
from torch import nn

from rtl_plugin.errors import RtlError, UnmaskedAccess
from rtl_plugin.masked_forward import MaskedModel, TensorSlots, mask_parameters
from tests.core.masking import assert_no_trace, trace


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.blocks = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.BatchNorm1d(2))
        self.heads = nn.ModuleDict({"left": nn.Linear(2, 1), "right": nn.Linear(2, 1)})
        self.gains = nn.ParameterList([nn.Parameter(torch.full((2,), 3.0)) for _ in range(2)])
        self.named_gains = nn.ParameterDict({"a": nn.Parameter(torch.full((2,), 4.0))})
        self.register_buffer("scale", torch.tensor(2.0))
        self.classes = ["cat", "dog"]
        self.aliases = [self.fc, self.blocks[0]]
        self.by_name = {"fc": self.fc}
        self.log: list[tuple[str, float]] = []

    @property
    def weight_norm(self) -> torch.Tensor:
        return self.fc.weight.square().sum()

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def last(self) -> nn.Module:
        return self.heads["right"]

    @staticmethod
    def smooth(x: torch.Tensor) -> torch.Tensor:
        return x / 2

    @classmethod
    def kind(cls) -> str:
        return cls.__name__

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)

    def forward(self, x: torch.Tensor, *, twice: bool = False) -> dict[str, object]:
        y = self.blocks(self.encode(x))
        return {"y": 2 * y if twice else y, "note": "free form"}


@pytest.fixture
def model() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def masks(model: Net) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {n: torch.rand_like(p) > 0.5 for n, p in model.named_parameters() if "bias" not in n}


@pytest.fixture
def masked(model: Net, masks: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return mask_parameters(dict(model.named_parameters()), masks)


@pytest.fixture
def view(model: Net, masked: dict[str, torch.Tensor]) -> MaskedModel:
    buffers = {n: b.clone() + 1 for n, b in model.named_buffers()}
    return MaskedModel(model, TensorSlots(model), masked, buffers)


def test_any_arguments_and_any_output(view: MaskedModel, model: Net) -> None:
    x = torch.randn(3, 2)
    out = view.forward(x, twice=True)
    assert out["note"] == "free form"
    assert out["y"].shape == (3, 2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'thrice'"):
        view(x, thrice=True)
    assert_no_trace(model, trace(model))


def test_parameters_and_buffers_appear_as_the_ticket_has_them(view, masked, model) -> None:
    assert view.fc.weight is masked["fc.weight"]
    assert view.fc.bias is model.fc.bias  # dense: the leaf itself, not a copy
    torch.testing.assert_close(view.scale, torch.tensor(3.0))
    torch.testing.assert_close(view.blocks[2].running_mean, torch.ones(2))


def test_plain_attributes_pass_through(view: MaskedModel) -> None:
    assert view.training is True
    assert view.fc.in_features == 2
    assert view.classes == ["cat", "dog"]
    assert view.kind() == "Net"
    assert view.device == torch.device("cpu")
    torch.testing.assert_close(view.smooth(torch.ones(1)), torch.tensor([0.5]))


def test_a_loss_may_append_to_a_list_of_the_model(view: MaskedModel, model: Net) -> None:
    view.log.append(("loss", 1.0))
    view.log.append(("loss", 2.0))
    assert model.log == [("loss", 1.0), ("loss", 2.0)]


def test_a_property_that_computes_on_weights_sees_them_masked(view, masked) -> None:
    expected = masked["fc.weight"].square().sum()
    torch.testing.assert_close(view.weight_norm, expected)
    assert not torch.allclose(view.weight_norm, view._module_.weight_norm)


def test_a_penalty_has_gradients_for_the_kept_weights_only(view, masks, model) -> None:
    view.fc.weight.abs().sum().backward()
    assert torch.equal(model.fc.weight.grad != 0, masks["fc.weight"])


def test_containers_are_indexed_iterated_and_counted(view, masked) -> None:
    assert view.blocks[0].weight is masked["blocks.0.weight"]
    assert view.blocks[-3].weight is masked["blocks.0.weight"]
    assert view.heads["left"].weight is masked["heads.left.weight"]
    assert view.gains[1] is masked["gains.1"]
    assert view.gains[1:][0] is masked["gains.1"]
    assert [gain is masked[f"gains.{k}"] for k, gain in enumerate(view.gains)] == [True, True]
    assert view.named_gains["a"] is masked["named_gains.a"]
    assert [type(layer._module_) for layer in view.blocks] == [nn.Linear, nn.Tanh, nn.BatchNorm1d]
    assert next(iter(view.blocks)).weight is masked["blocks.0.weight"]
    assert (len(view.blocks), len(view.gains), len(view.heads)) == (3, 2, 2)
    assert list(view.heads) == ["left", "right"] == list(view.heads.keys())
    assert [h.weight is masked[f"heads.{n}.weight"] for n, h in view.heads.items()] == [True] * 2
    assert [h.weight.shape for h in view.heads.values()] == [(1, 2), (1, 2)]
    assert dict(view.named_gains.items())["a"] is masked["named_gains.a"]
    assert "left" in view.heads
    assert "middle" not in view.heads


def test_a_slice_of_a_container_is_masked_too(view, masked) -> None:
    assert view.blocks[:2][0].weight is masked["blocks.0.weight"]
    with pytest.raises(UnmaskedAccess, match="would run weights without their masks"):
        view.blocks[:2](torch.ones(1, 2))


def test_a_model_that_is_a_container_itself() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh())
    zero = {"0.weight": torch.zeros(1, 1)}
    view = MaskedModel(model, TensorSlots(model), zero, {})
    assert view[0].weight is zero["0.weight"]
    assert len(view) == 2
    assert [type(layer._module_) for layer in view] == [nn.Linear, nn.Tanh]


def test_modules_behind_properties_lists_and_dicts_are_masked(view, masked) -> None:
    assert view.last.weight is masked["heads.right.weight"]
    assert view.aliases[0].weight is masked["fc.weight"]
    assert view.by_name["fc"].weight is masked["fc.weight"]
    for layer in (view.last, view.aliases[1], view.by_name["fc"]):
        with pytest.raises(UnmaskedAccess, match="would run weights without their masks"):
            layer(torch.ones(1, 2))


def test_parameters_and_buffers_are_listed_masked(view, masked) -> None:
    listed = dict(view.named_parameters())
    assert listed.keys() == masked.keys()
    assert all(listed[name] is masked[name] for name in masked)
    assert [id(p) for p in view.parameters()] == [id(p) for p in masked.values()]
    assert list(view.parameters(recurse=False)) == []
    assert dict(view.fc.named_parameters(prefix="fc"))["fc.weight"] is masked["fc.weight"]
    assert view.get_submodule("heads.left").weight is masked["heads.left.weight"]
    torch.testing.assert_close(dict(view.named_buffers())["scale"], torch.tensor(3.0))
    torch.testing.assert_close(view.state_dict()["fc.weight"], masked["fc.weight"].detach())
    total = sum(p.abs().sum() for p in view.parameters())
    torch.testing.assert_close(total, sum(p.abs().sum() for p in masked.values()))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda view, x: view.encode(x), "encode"),
        (lambda view, x: view.fc(x), "fc"),
        (lambda view, x: view.fc.forward(x), "fc.forward"),
        (lambda view, x: view.blocks[0](x), "blocks[0]"),
        (lambda view, x: view.heads["left"](x), "heads['left']"),
        (lambda view, x: next(iter(view.heads.values()))(x), "heads.values"),
        (lambda view, x: view.aliases[0](x), "aliases[0]"),
        (lambda view, x: view.last(x), "last"),
        (lambda view, x: next(iter(view.blocks))(x), "blocks[0]"),
        (lambda view, x: view.get_submodule("fc")(x), "get_submodule"),
        (lambda view, x: view.apply(lambda module: None), "apply"),
        (lambda view, x: view.eval(), "eval"),
        (lambda view, x: view.to("cpu"), "to"),
    ],
)
def test_running_anything_but_the_model_is_refused_with_the_remedy(view, call, named) -> None:
    with pytest.raises(UnmaskedAccess) as caught:
        call(view, torch.ones(1, 2))
    assert str(caught.value).startswith(f"the loss called {named!r}, which would run weights")
    assert "have its forward do (or dispatch to) what you need" in str(caught.value)
    assert isinstance(caught.value, RtlError)
    assert isinstance(caught.value, AttributeError)


@pytest.mark.parametrize("path", ["", "fc"])
def test_setting_and_deleting_is_refused(view: MaskedModel, model: Net, path: str) -> None:
    target = getattr(view, path) if path else view
    before = trace(model)
    with pytest.raises(UnmaskedAccess, match="a loss may not set 'weight' on the model"):
        target.weight = torch.ones(2, 2)
    with pytest.raises(UnmaskedAccess, match="a loss may not delete 'bias' from the model"):
        del target.bias
    assert_no_trace(model, before)


def test_unknown_attributes_and_items_are_the_usual_errors(view: MaskedModel, model: Net) -> None:
    before = trace(model)
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'nope'"):
        _ = view.nope
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'nope'"):
        _ = view.fc.nope
    with pytest.raises(IndexError, match="out of range"):
        _ = view.blocks[7]
    with pytest.raises(KeyError, match="nope"):
        _ = view.heads["nope"]
    with pytest.raises(TypeError, match="not subscriptable"):
        _ = view.fc[0]
    with pytest.raises(TypeError, match="not iterable"):
        _ = list(view.fc)
    with pytest.raises(TypeError, match="has no len"):
        len(view.fc)
    assert not hasattr(view, "nope")
    assert_no_trace(model, before)


def test_a_view_is_true_and_prints_its_module(view: MaskedModel) -> None:
    assert [bool(view), bool(view.fc), bool(view.blocks)] == [True] * 3
    assert repr(view).startswith("MaskedModel(Net(")
    assert repr(view.fc) == f"MaskedView({view.fc._module_!r})"


def test_a_half_made_view_does_not_recurse() -> None:
    # What copy and pickle make before they fill in the slots.
    with pytest.raises(AttributeError, match="_module_"):
        _ = MaskedModel.__new__(MaskedModel)._module_
    model = nn.Linear(1, 1)
    view = MaskedModel(model, TensorSlots(model), dict(model.named_parameters()), {})
    with pytest.raises((UnmaskedAccess, TypeError, AttributeError)):
        copy.deepcopy(view)


def test_tied_parameters_are_listed_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    own = {**dict(model.named_parameters()), "0.weight": torch.zeros(2, 2)}
    view = MaskedModel(model, TensorSlots(model), own, {})
    assert [name for name, _ in view.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert view[1].weight is own["0.weight"]
