"""The same training through Ray Train, which starts the workers and gives each its TF_CONFIG.

    pip install "ray[train]"
    python examples/distributed/ray_train.py --workers 2

When a worker dies, Ray starts all of them again, and they go on from the last whole epoch.
"""

from __future__ import annotations

import argparse
import pathlib
import runpy
import sys

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.tensorflow import TensorflowTrainer

SCRIPT = pathlib.Path(__file__).with_name("train.py").resolve()


def train(config: dict) -> None:
    """What each worker runs, with TF_CONFIG in its environment."""
    sys.argv = [str(SCRIPT), "--folder", config["folder"], "--balancer", config["balancer"]]
    runpy.run_path(str(SCRIPT), run_name="__main__")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", default="runs/ray", help="one that all workers see")
    parser.add_argument("--balancer", default="nmt")
    options = parser.parse_args()
    folder = str(pathlib.Path(options.folder).resolve())
    trainer = TensorflowTrainer(
        train,
        train_loop_config={"folder": folder, "balancer": options.balancer},
        # All cores are for the workers, so that two of them fit on a machine with two cores.
        scaling_config=ScalingConfig(num_workers=options.workers, trainer_resources={"CPU": 0}),
        run_config=RunConfig(
            storage_path=f"{folder}-ray", failure_config=FailureConfig(max_failures=3)
        ),
    )
    trainer.fit()


if __name__ == "__main__":
    main()
