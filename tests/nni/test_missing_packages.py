"""What is not installed is named, with the command that installs it."""

import subprocess
import sys
from pathlib import Path

# NNI pins one that Python 3.12 warns about.
TYPEGUARD = "ignore::DeprecationWarning:typeguard._transformer"
ROOT = Path(__file__).parents[2]


def run_without(package: str, code: str) -> str:
    """Standard output of a fresh interpreter in which a package cannot be imported."""
    blocked = f"import sys; sys.modules[{package!r}] = None; sys.path[:0] = {_paths()!r}\n"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-W", TYPEGUARD, "-c", blocked + code],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _paths() -> list[str]:
    return [str(ROOT), str(ROOT / "integrations")]


WITHOUT_NNI = """
import torch
from torch import nn
import rtl_nni
from rtl_plugin import DataGroups
from rtl_plugin.errors import MissingExtra

for name in ("RTLPruner", "CollapseAssessor", "TpeTuner"):
    try:
        getattr(rtl_nni, name)
    except MissingExtra as error:
        print(name, error)
batch = (torch.eye(4), torch.ones(4, 1))
loaders = {"a": [batch], "b": [batch]}
result = rtl_nni.run_trial(
    lambda seed: nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1)),
    DataGroups.from_loaders(loaders, validation=loaders),
    lambda model, batch: (model(batch[0]) - batch[1]).square().mean(),
    lambda model, batches: 0.5,
    {"sparsity": 0.5, "rounds": 2, "steps": 1, "epochs": 1},
    optimizer=lambda params: torch.optim.SGD(params, 0.1),
    folder="FOLDER/first",
)
print(rtl_nni.read_trials("FOLDER")[0].metric, sorted(rtl_nni.search_space(rounds=2)))
"""


def test_without_nni_a_trial_runs_and_the_rest_says_what_to_install(tmp_path: Path) -> None:
    said = run_without("nni", WITHOUT_NNI.replace("FOLDER", str(tmp_path))).splitlines()
    for line, name in zip(said, ("RTLPruner", "CollapseAssessor", "TpeTuner"), strict=False):
        assert line.startswith(name)
        assert "pip install 'rtl-plugin[nni]'" in line
    assert said[3:] == ["0.5 ['rounds', 'sparsity']"]


def test_the_core_reads_and_writes_masks_without_nni() -> None:
    said = run_without(
        "nni",
        "import torch, rtl_plugin as rtl\n"
        "model = torch.nn.Linear(2, 1)\n"
        "masks = {'': {'weight': torch.tensor([[1.0, 0.0]])}}\n"
        "print(rtl.TicketSet.from_nni(masks, model).to_nni('pruned'))\n",
    )
    assert said.strip() == "{'': {'weight': tensor([[1., 0.]])}}"


WITHOUT_TORCH_PRUNING = """
import nni, torch, rtl_nni
from nni.compression.pruning import L1NormPruner
from rtl_plugin.errors import MissingExtra

model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
evaluators = rtl_nni.torch_evaluators(
    model,
    {"a": [torch.rand(4, 4)]},
    training_step=lambda batch, model: model(batch).square().mean(),
    optimizer=lambda params: nni.trace(torch.optim.SGD)(params, lr=0.1),
)
config = [{"op_names": ["0"], "sparse_ratio": 0.5}]
pruner = rtl_nni.RTLPruner(model, config, L1NormPruner, evaluators, steps=2)
_, masks = pruner.compress()
print(int(masks["a"]["0"]["bias"].sum()))
rtl_nni.retrain(model, pruner.tickets, evaluators, turns=1, steps=1)
for call in (
    lambda: rtl_nni.speedup(model, masks["a"], torch.rand(1, 4)),
    lambda: rtl_nni.add_dependency_ids(config, model, torch.rand(1, 4)),
    lambda: rtl_nni.add_norm_alignment(config, model, torch.rand(1, 4)),
):
    try:
        call()
    except MissingExtra as error:
        print(error)
"""


def test_without_torch_pruning_everything_but_cutting_works() -> None:
    said = run_without("torch_pruning", WITHOUT_TORCH_PRUNING).splitlines()
    assert said[0] == "4"
    assert len(said) == 4
    assert all("pip install 'rtl-plugin[nni,torch-pruning]'" in line for line in said[1:])
