"""An NNI experiment over adaptive tickets: TPE proposes, CollapseAssessor stops, digits judge.

    python examples/nni_search/search.py

NNI's own manager runs the trials on this machine, two at a time, and serves its web page meanwhile.
A trial finds tickets for five environments of real digits and retrains them; one whose tickets
collapse is stopped by their masks alone. Trials take rounds that others have trained already.
Afterwards: a table of the trials, what was saved, the Pareto front of accuracy and parameters, and
the quickstart's configuration beside it. Only the validation split is read.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import outcome

import rtl_nni

HERE = Path(__file__).resolve().parent
STARTUP = 8  # proposals before TPE uses results


def arguments_given() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("search-output"))
    parser.add_argument("--port", type=int, help="of NNI's web page; by default a free one")
    parser.add_argument("--resume", metavar="ID", help="go on with an interrupted experiment")
    parser.add_argument("--config", type=Path, help="an NNI YAML file instead of what follows")
    before = {action.dest for action in parser._actions}
    parser.add_argument("--trials", type=int, default=16, help="default 16")
    parser.add_argument("--concurrency", type=int, default=2, help="trials at a time; default 2")
    parser.add_argument("--seed", type=int, default=0, help="of tuner and trials; default 0")
    parser.add_argument("--share", type=float, default=0.5, help="of collapsed tickets; default .5")
    parser.add_argument("--no-assessor", action="store_true", help="run every trial to its end")
    parser.add_argument("--no-warm-start", action="store_true", help="train every round")
    arguments = parser.parse_args()
    made = "resume" if arguments.resume else "config" if arguments.config else None
    for action in parser._actions:
        if made and action.dest not in before and getattr(arguments, action.dest) != action.default:
            parser.error(f"{action.option_strings[-1]} would do nothing beside --{made}")
    if arguments.resume and arguments.config:
        parser.error("--config would do nothing beside --resume: NNI keeps what was begun")
    return arguments


def configuration(arguments: argparse.Namespace) -> Any:
    """NNI's configuration, in Python; config.yml is the same in YAML."""
    import task
    from nni.experiment import CustomAlgorithmConfig, ExperimentConfig

    config = ExperimentConfig("local")
    config.experiment_name = "adaptive tickets on digits"
    config.search_space = task.space()
    warm_start = "" if arguments.no_warm_start else " --warm-start"
    config.trial_command = f"python trial.py --seed {arguments.seed}{warm_start}"
    config.trial_code_directory = HERE
    config.trial_concurrency = arguments.concurrency
    config.max_trial_number = arguments.trials
    config.experiment_working_directory = arguments.output.resolve() / "nni"
    config.training_service.use_active_gpu = False
    config.tuner = CustomAlgorithmConfig(
        class_name="rtl_nni.TpeTuner",  # NNI's, less a crash
        code_directory=HERE,
        class_args={
            "optimize_mode": "maximize",
            "seed": arguments.seed,
            "tpe_args": {"n_startup_jobs": STARTUP},
        },
    )
    if not arguments.no_assessor:
        config.assessor = CustomAlgorithmConfig(
            class_name="rtl_nni.CollapseAssessor",
            code_directory=HERE,
            class_args={"share": arguments.share},
        )
    return config


def told(status: rtl_nni.ExperimentStatus) -> None:
    """One line whenever something changed."""
    trials = ", ".join(f"{number} {name}" for name, number in status.trials.items())
    print(f"{status.seconds:5.0f} s  {status.url}  {status.status}: {trials or 'no trials yet'}")


def main() -> None:
    """Run the experiment, then tell what it found."""
    arguments = arguments_given()
    # NNI starts trials by "python": the one that runs this, also without an activated environment.
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    config = arguments.config or (None if arguments.resume else configuration(arguments))
    result = rtl_nni.run_experiment(
        config,
        port=arguments.port,
        resume=arguments.resume,
        on_status=told,
    )
    print(f"\nexperiment {result.id}, {result.seconds:.0f} s, {result.folder}\n")
    outcome.tell(result.folder, arguments.output)


if __name__ == "__main__":
    main()
