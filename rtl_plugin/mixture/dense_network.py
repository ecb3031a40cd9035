"""The unmasked network, for samples that no ticket knows."""

import threading
from typing import Any

import torch
from torch import nn

from rtl_plugin.mixture.versions import Snapshot, snapshot
from rtl_plugin.mixture.workspace import Workspace


class DenseNetwork:
    """Runs a network as it is, in eval mode, without touching it; threads may share one.

    Args:
        model: the network whose present parameters and buffers are used at every call.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._local = threading.local()

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the network.

        Args:
            args: of its forward.
            kwargs: of its forward.

        Returns:
            Its output; gradients flow to the inputs alone, as they do under tickets.
        """
        workspace = self._workspace()
        before = snapshot(workspace.buffers())
        output = workspace.replica(*args, **kwargs)
        if not before.still_holds(workspace.buffers()):
            self._local.made = None  # its forward counts or averages, and begins afresh every time
        return output

    def _workspace(self) -> Workspace:
        parameters = dict(self._model.named_parameters())
        sources = parameters | dict(self._model.named_buffers())
        made: tuple[Snapshot, Workspace] | None = getattr(self._local, "made", None)
        if made is None or not made[0].still_holds(sources.values()):
            with torch.inference_mode(False), torch.no_grad():
                values = {n: t.detach() for n, t in sources.items()}
                seen = snapshot(sources.values())  # first: a change from now on is noticed
                values |= {n: t.clone() for n, t in values.items() if n not in parameters}
                workspace = Workspace(self._model, ())
                workspace.share(values)
                made = seen, workspace
            self._local.made = made
        return made[1]
