"""One trial of the experiment: NNI's manager runs this file."""

import argparse

import task
import torch

import rtl_nni


def main() -> None:
    """Ask NNI for parameters and run the trial; its figures go to NNI's manager."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the network and its training")
    parser.add_argument("--warm-start", action="store_true", help="share rounds with other trials")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # trials run side by side, a core each
    params = {"seed": arguments.seed, **rtl_nni.next_parameters()}
    task.run(params, warm_start=arguments.warm_start)


if __name__ == "__main__":
    main()
