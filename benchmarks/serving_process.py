"""What serving adds to a process: run in a fresh one by ``serving_memory``.

    python -m benchmarks.serving_process (copies | mixture | again) NET DTYPE FOLDER

prints bytes as JSON. Copies are built without memory of their own (on the meta device) and take
what their files hold; the mixture is read into a copy of a network, which is dropped then. Only
Linux tells a process its resident memory and lets it reset the peak.
"""

import json
import sys
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

import rtl_plugin as rtl
from benchmarks.serving_networks import (
    NETWORKS,
    TICKETS,
    inputs,
    loop_of_copies,
    routing,
    sort_rows,
)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
STATUS = Path("/proc/self/status")


def status(*fields: str) -> list[int]:
    """Bytes of lines of the process's status, read at once: reading itself takes a page."""
    text = STATUS.read_text(encoding="ascii")
    lines = dict(line.split(":", 1) for line in text.splitlines())
    if missing := [field for field in fields if field not in lines]:
        raise RuntimeError(f"{STATUS} has no line {missing[0]!r}")
    return [int(lines[field].split()[0]) * 1024 for field in fields]


def empty(net: str) -> nn.Module:
    """The network's structure without its weights."""
    with torch.device("meta"):
        return NETWORKS[net].build().eval()


def warm_up(dtype: torch.dtype) -> None:
    """Let libraries take what they take once."""
    for layer, shape in ((nn.Linear(64, 64), (2, 64)), (nn.Conv2d(8, 8, 3), (2, 8, 8, 8))):
        layer.to(dtype)(torch.zeros(*shape, dtype=dtype))


def main() -> None:
    """Load, serve one mixed batch with a sample a ticket, report."""
    kind, net, dtype_name, folder = sys.argv[1:]
    torch.set_num_threads(1)
    dtype = DTYPES[dtype_name]
    x, indices = inputs(net, TICKETS).to(dtype), routing(TICKETS, TICKETS, 0.0)
    with torch.inference_mode():
        warm_up(dtype)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak
        (before,) = status("VmRSS")
        if kind == "mixture":
            path = Path(folder) / "mixture.safetensors"
            skeleton = NETWORKS[net].build().to(dtype)
            mixture = rtl.MixtureOfMasks.load(path, skeleton, budget=0)
            del skeleton
            (loaded,) = status("VmHWM")
            out = mixture(x, tickets=indices)
        else:
            copies = []
            for k in range(TICKETS):
                copies.append(empty(net))
                weights = safetensors.torch.load_file(Path(folder) / f"copy-{k}.safetensors")
                copies[-1].load_state_dict(weights, assign=True)
            (loaded,) = status("VmHWM")
            out = loop_of_copies(copies, x, sort_rows(indices))
    peak, resident = status("VmHWM", "VmRSS")
    found = {
        "peak_of_loading": loaded - before,
        "peak": peak - before,
        "resident": resident - before,
        "output": out.float().flatten()[:: max(1, out.numel() // 20)].tolist(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
