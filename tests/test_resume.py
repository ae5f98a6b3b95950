"""A run that is killed and started again ends where the unbroken one does."""

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np

SCRIPT = pathlib.Path(__file__).parents[1] / "examples" / "resume.py"


def command(folder):
    return [sys.executable, str(SCRIPT), str(folder)]


def test_killed_in_stage_two_and_started_again_ends_with_the_same_weights(tmp_path):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(command(tmp_path / "unbroken"), check=True, env=environment)

    process = subprocess.Popen(
        command(tmp_path / "killed"), stdout=subprocess.PIPE, text=True, env=environment
    )
    for line in process.stdout:
        if line.strip() == "epoch 6 stage 2":  # the seventh epoch is under way
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert not (tmp_path / "killed" / "final.npz").exists()

    again = subprocess.run(
        command(tmp_path / "killed"), check=True, capture_output=True, text=True, env=environment
    )
    epochs = [line for line in again.stdout.splitlines() if line.startswith("epoch")]
    assert epochs == ["epoch 7 stage 2", "epoch 8 stage 3"] or epochs[-1].startswith("epoch 8")
    assert not any(line.startswith("epoch 1 ") for line in epochs)
    with (
        np.load(tmp_path / "unbroken" / "final.npz") as unbroken,
        np.load(tmp_path / "killed" / "final.npz") as resumed,
    ):
        for name in unbroken:
            np.testing.assert_array_equal(resumed[name], unbroken[name])
