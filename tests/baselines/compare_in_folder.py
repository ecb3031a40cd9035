"""Run a tiny comparison in the folder named on the command line; killed by test_compare_kill."""

import sys

import torch

import rtl_plugin as rtl
from tests.baselines.tiny import adam, build_model, cross_entropy, groups


def main(folder: str) -> None:
    torch.set_num_threads(1)
    # What is imported late would otherwise be most of what kills hit.
    import sklearn.metrics  # noqa: F401

    adam([torch.zeros(1, requires_grad=True)]).step()
    print("ready", flush=True)
    rtl.compare(
        build_model,
        groups(),
        cross_entropy,
        schedule=rtl.GeometricSchedule(0.6, rounds=3),
        steps=4,
        epochs=2,
        optimizer=adam,
        seeds=[0, 1],
        rewind_to=3,
        private_parameters=["1.*"],
        run_folder=folder,
    )


if __name__ == "__main__":
    main(sys.argv[1])
