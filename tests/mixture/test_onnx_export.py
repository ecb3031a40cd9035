"""ONNX files and torch.export programs of single tickets, against copies multiplied by hand."""

import copy
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision
from torch import nn

from rtl_plugin import MixtureOfMasks
from rtl_plugin.errors import ExportFailed, InvalidArgument, MissingExtra, UnknownTicket
from rtl_plugin.mixture.export_inputs import relative_difference
from rtl_plugin.mixture.exporting import export_onnx, export_program
from tests.channels.zoo import CONV_BN, LAYER_NORM, ChannelNet, channel_tickets
from tests.channels.zoo import made as made_channels
from tests.mixture.plain_loop import plain_copy, random_tickets
from tests.models import ZOO


class UNet(nn.Module):
    """Down, up by a transposed convolution, and a connection around both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.down = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top = torch.relu(self.stem(x))
        bottom = torch.relu(self.norm(self.down(top)))
        return self.head(torch.cat([top, self.up(bottom)], dim=1))


def pictures(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 3, 32, 32)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[..., torch.Tensor]]] = {
    **{network.name: (network.build, network.inputs) for network in ZOO},
    "u_net": (UNet, pictures),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=10), pictures),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(num_classes=10), pictures),
}


def served(name: str) -> tuple[nn.Module, MixtureOfMasks, Callable[..., torch.Tensor]]:
    torch.manual_seed(5)
    build, inputs = NETWORKS[name]
    model = build()
    return model, MixtureOfMasks(model, random_tickets(model, names=("a", "b"))), inputs


def in_onnxruntime(path: Path, *inputs: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))


def close(seen: np.ndarray, expected: torch.Tensor) -> None:
    expected = expected.detach()
    largest = float(expected.abs().max())
    torch.testing.assert_close(torch.from_numpy(seen), expected, rtol=1e-4, atol=1e-4 * largest)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_computes_what_the_ticket_computes(name: str, tmp_path: Path) -> None:
    model, mixture, inputs = served(name)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    report = export_onnx(mixture, "b", tmp_path / "b.onnx", inputs(3))
    x = inputs(6)
    (seen,) = in_onnxruntime(report.path, x)
    close(seen, plain_copy(model, mixture.tickets["b"])(x))
    other = plain_copy(model, mixture.tickets["a"])(x)
    assert not np.allclose(seen, other.detach().numpy(), atol=1e-3)
    assert report.batch_sizes == (3, 1, 4)
    assert report.difference is not None
    assert report.difference < 1e-4
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert model.training, "the user's model left train mode"
    assert [path.name for path in tmp_path.iterdir()] == ["b.onnx"]


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    _, mixture, inputs = served("mlp")
    report = export_onnx(mixture, 0, tmp_path / "folder" / "a.onnx", inputs(3), opset=18)
    proto = onnx.load(report.path)
    onnx.checker.check_model(proto, full_check=True)
    assert {each.key: each.value for each in proto.metadata_props} == {
        "producer": "rtl-plugin",
        "ticket": "a",
    }
    first = proto.graph.input[0].type.tensor_type.shape.dim
    last = proto.graph.output[0].type.tensor_type.shape.dim
    assert [first[0].dim_param, first[1].dim_value, last[0].dim_param] == ["batch", 5, "batch"]
    assert (report.ticket, report.opset, report.dynamic_batch) == ("a", 18, True)
    assert [each.version for each in proto.opset_import if not each.domain] == [18]
    assert report.size == report.path.stat().st_size
    assert report.inputs == tuple(each.name for each in proto.graph.input)
    assert report.outputs == tuple(each.name for each in proto.graph.output)


@pytest.mark.parametrize("network", [CONV_BN, LAYER_NORM], ids=str)
def test_a_channel_ticket_becomes_a_small_file(network: ChannelNet, tmp_path: Path) -> None:
    model = made_channels(network, torch.float32)
    tickets = channel_tickets(network, model)
    mixture = MixtureOfMasks(model, tickets)
    report = export_onnx(mixture, "b", tmp_path / "b.onnx", network.inputs(3))
    x = network.inputs(5)
    close(in_onnxruntime(report.path, x)[0], plain_copy(model, tickets["b"])(x))
    held = {tuple(each.dims) for each in onnx.load(report.path).graph.initializer}
    small = {tuple(p.shape) for p in mixture.export("b").parameters() if p.dim() > 1}
    assert small <= held
    assert not held & ({tuple(p.shape) for p in model.parameters() if p.dim() > 1} - small)


def test_one_batch_size_only(tmp_path: Path) -> None:
    _, mixture, inputs = served("conv_net")
    path = tmp_path / "a.onnx"
    report = export_onnx(mixture, "a", path, inputs(3), dynamic_batch=False)
    assert report.batch_sizes == (3,)
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        in_onnxruntime(path, inputs(4))


def test_one_row_as_an_example_is_enough(tmp_path: Path) -> None:
    model, mixture, inputs = served("resnet")
    report = export_onnx(mixture, "a", tmp_path / "a.onnx", inputs(1))
    assert report.batch_sizes == (2, 1, 3)
    x = inputs(7)
    close(in_onnxruntime(report.path, x)[0], plain_copy(model, mixture.tickets["a"])(x))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LSTM(5, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)[0][:, -1])


def test_a_recurrent_layer_is_exported_without_a_warning(tmp_path: Path) -> None:
    model, x = Recurrent(), torch.randn(5, 4, 5)
    report = export_onnx(model, None, tmp_path / "r.onnx", torch.randn(3, 4, 5))
    close(in_onnxruntime(report.path, x)[0], model(x))


class Nested(nn.Module):
    """A dict, a table that is no batch, a number, and a None that it may be given."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 2)

    def forward(
        self,
        batch: dict[str, torch.Tensor],
        table: torch.Tensor,
        scale: float = 1.0,
        *,
        shift: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        y = self.body(batch["x"]) * scale + table.sum() + batch["extra"]
        y = y if shift is None else y + shift
        return {"scores": y, "more": (y.argmax(1), None), "total": y.sum()}


@pytest.mark.parametrize("shift", [None, torch.randn(3, 2)], ids=["none", "tensor"])
def test_nested_inputs_and_outputs(shift: torch.Tensor | None, tmp_path: Path) -> None:
    model = Nested()
    batch = {"x": torch.randn(3, 4), "extra": torch.randn(3, 1)}
    inputs = {"batch": batch, "table": torch.randn(7), "scale": 2.0, "shift": shift}
    report = export_onnx(model, None, tmp_path / "n.onnx", inputs)
    given = [batch["x"], batch["extra"], inputs["table"], *([] if shift is None else [shift])]
    expected = model(**inputs)
    seen = in_onnxruntime(report.path, *given)
    assert len(report.inputs) == len(given)
    for ours, theirs in zip(
        seen, (expected["scores"], expected["more"][0], expected["total"]), strict=True
    ):
        close(ours, theirs)
    by_position = (batch, inputs["table"], 2.0) if shift is None else None
    if by_position is not None:
        again = export_onnx(model, None, tmp_path / "p.onnx", by_position)
        close(in_onnxruntime(again.path, *given)[0], expected["scores"])


class Broken(nn.Module):
    """Computes something else while it is captured than later."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.body, self.how = nn.Linear(4, 2), how

    def forward(self, x: torch.Tensor) -> Any:
        if self.how == "random":
            return self.body(x) * random.random()
        if self.how == "batch size of the example":
            return self.body(x) * (3 if torch.compiler.is_compiling() else x.shape[0])
        if self.how == "fixed batch size":
            return self.body(x).reshape(3, 2)
        if self.how == "branch on values":
            return self.body(x) if x.sum() > 0 else x
        if self.how == "number beside":
            return self.body(x), 7
        if self.how == "special case of one row":
            return self.body(x) if x.shape[0] > 1 else -self.body(x)
        if self.how == "late check" and torch.compiler.is_compiling():
            torch._assert_async(torch.tensor(x.shape[0]) < 4)
        if self.how == "more rows than allowed" and torch.compiler.is_compiling():
            torch._check(x.shape[0] % 3 == 0)
        return self.body(x).to(torch.float64) if torch.compiler.is_compiling() else self.body(x)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("random", "output 0 of .* differs from the module's by .* on a batch of 3"),
        ("batch size of the example", "differs from the module's by 2 of its .* on a batch of 1"),
        ("fixed batch size", "cannot capture Broken .*batch size with dynamic_batch=False"),
        ("branch on values", "cannot capture Broken .*without branches on values"),
        ("special case of one row", "on a batch of 1"),
        ("more rows than allowed", "cannot capture"),
        ("number beside", "returns 7 beside tensors"),
        ("another dtype", "gives .*float64 .* the module .*float32"),
    ],
)
def test_a_wrong_file_is_not_kept(how: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"the one before")
    with pytest.raises(ExportFailed, match=f"(?s){message}"):
        export_onnx(Broken(how), None, path, torch.rand(3, 4))
    assert path.read_bytes() == b"the one before"
    assert [each.name for each in tmp_path.iterdir()] == ["broken.onnx"]


@pytest.mark.parametrize(
    "how", ["random", "batch size of the example", "another dtype", "special case of one row"]
)
def test_a_wrong_program_is_not_returned(how: str) -> None:
    with pytest.raises(ExportFailed, match="the exported program"):
        export_program(Broken(how), torch.rand(3, 4))


def test_a_fixed_batch_size_can_be_exported_as_such(tmp_path: Path) -> None:
    model = Broken("fixed batch size")
    x = torch.rand(3, 4)
    report = export_onnx(model, None, tmp_path / "f.onnx", x, dynamic_batch=False)
    close(in_onnxruntime(report.path, x)[0], model(x))


def test_a_program_runs_any_batch_size_in_eval_mode() -> None:
    model, mixture, inputs = served("conv_net")
    program = export_program(mixture.export("b"), inputs(3))
    plain = plain_copy(model, mixture.tickets["b"])
    for rows in (1, 3, 8):
        x = inputs(rows)
        torch.testing.assert_close(program.module()(x), plain(x))
    training = copy.deepcopy(plain).train()
    x = inputs(4)
    torch.testing.assert_close(export_program(training, x).module()(x), plain(x))
    assert all(module.training for module in training.modules())
    fixed = export_program(plain, x, dynamic_batch=False)
    torch.testing.assert_close(fixed.module()(x), plain(x))
    with pytest.raises(AssertionError, match="Guard failed"):
        fixed.module()(inputs(5))


def test_a_program_shares_the_modules_weights() -> None:
    plain = nn.Linear(4, 2)
    program = export_program(plain, torch.rand(3, 4))
    assert program.state_dict["weight"].data_ptr() == plain.weight.data_ptr()


def hidden(*packages: str) -> Callable[[pytest.MonkeyPatch], None]:
    def hide(patch: pytest.MonkeyPatch) -> None:
        for package in packages:
            patch.setitem(sys.modules, package, None)

    return hide


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden(package)(monkeypatch)
    with pytest.raises(MissingExtra, match=rf"{package} .*pip install 'rtl-plugin\[onnx\]'"):
        export_onnx(nn.Linear(2, 1), None, tmp_path / "a.onnx", torch.rand(3, 2))
    assert [*tmp_path.iterdir()] == []


def test_without_the_check_onnxruntime_is_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = nn.Linear(2, 1), torch.rand(3, 2)
    with monkeypatch.context() as patch:
        hidden("onnxruntime")(patch)
        report = export_onnx(model, None, tmp_path / "a.onnx", x, check=False)
    assert (report.batch_sizes, report.difference) == ((), None)
    close(in_onnxruntime(report.path, x)[0], model(x))


@pytest.mark.parametrize(("dtype", "works"), [
    (torch.float64, True), (torch.float16, True), (torch.bfloat16, False),
])  # fmt: skip
def test_other_dtypes(dtype: torch.dtype, works: bool, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).to(dtype)
    x, path = torch.rand(3, 4).to(dtype), tmp_path / "a.onnx"
    if works:
        difference = export_onnx(model, None, path, x).difference
        assert difference is not None
        assert difference < (1e-10 if dtype is torch.float64 else 2e-2)
    else:
        with pytest.raises(ExportFailed, match=r"onnxruntime cannot .*check=False"):
            export_onnx(model, None, path, x)
        assert not path.exists()
        export_onnx(model, None, path, x, check=False)
        assert path.exists()


def test_bad_arguments(tmp_path: Path) -> None:
    _, mixture, inputs = served("mlp")
    path, linear, x = tmp_path / "a.onnx", nn.Linear(4, 2), torch.rand(3, 4)
    with pytest.raises(UnknownTicket, match="unknown ticket 'z'"):
        export_onnx(mixture, "z", path, inputs(3))
    with pytest.raises(InvalidArgument, match="name= says which ticket"):
        export_onnx(mixture, None, path, inputs(3))
    with pytest.raises(InvalidArgument, match="name='a' asks for a ticket of a mixture"):
        export_onnx(linear, "a", path, x)
    with pytest.raises(InvalidArgument, match=r"export takes an nn.Module.* got str"):
        export_program("linear", x)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"example_inputs= takes a tensor.* got int"):
        export_program(linear, 3)
    with pytest.raises(InvalidArgument, match="holds no tensor"):
        export_program(linear, (), dynamic_batch=False)
    with pytest.raises(InvalidArgument, match="has no rows"):
        export_program(linear, torch.rand(0, 4))
    with pytest.raises(InvalidArgument, match="has one row"):
        export_program(Nested(), ({"x": torch.rand(1, 4), "extra": torch.rand(1, 1)}, x))
    with pytest.raises(ExportFailed, match=r"asked for opset 1, the exporter wrote \d+"):
        export_onnx(linear, None, path, x, opset=1)
    assert not path.exists()


def test_weights_that_one_file_cannot_hold(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    model.weight = nn.Parameter(torch.zeros(1, 1).expand(2**20, 2**9))
    with pytest.raises(InvalidArgument, match="one ONNX file holds 2,147,483,647"):
        export_onnx(model, None, tmp_path / "a.onnx", torch.rand(3, 1))


class NoSuchOperator(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x)


def test_a_step_that_onnx_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match=r"cannot be written as ONNX .*eig"):
        export_onnx(NoSuchOperator(), None, tmp_path / "a.onnx", torch.rand(3, 4, 4))
    assert [*tmp_path.iterdir()] == []


class Warns(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        warnings.warn("mind this", UserWarning, stacklevel=1)
        return self.body(x)


class KeepsATensor(nn.Module):
    """Assigns a tensor attribute while it is captured, of which torch rightly warns."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.seen = nn.LSTM(5, 6, batch_first=True), torch.zeros(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.mean()
        return self.body(x)[0]


def test_warnings_that_are_the_users_pass() -> None:
    with pytest.warns(UserWarning, match="mind this"):
        export_program(Warns(), torch.rand(3, 4))
    with pytest.warns(UserWarning, match=r"self\.seen"):
        export_program(KeepsATensor(), torch.rand(3, 4, 5))


@pytest.mark.parametrize(("expected", "seen", "difference"), [
    ([1.0, -4.0], [1.0, -3.0], 0.25),
    ([0.0, 0.0], [0.0, 0.0], 0.0),
    ([0.0, 0.0], [0.0, 1e-9], 1e-7),
    ([float("nan"), 1.0], [float("nan"), 1.0], 0.0),
    ([float("nan"), 1.0], [1.0, 1.0], float("inf")),
    ([1.0, 1.0], [float("nan"), 1.0], float("inf")),
    ([float("inf"), 2.0], [float("inf"), 1.0], 0.5),
    ([float("inf"), 2.0], [-float("inf"), 2.0], float("inf")),
    ([True, False], [True, True], float("inf")),
    ([3, 4], [3, 4], 0.0),
    ([], [], 0.0),
])  # fmt: skip
def test_relative_difference(expected: list[Any], seen: list[Any], difference: float) -> None:
    assert relative_difference(torch.tensor(expected), torch.tensor(seen)) == pytest.approx(
        difference
    )
