"""Two processes train together; one is killed, both are started again, nothing is lost."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np

from tests.test_replicas import free_ports

SCRIPT = pathlib.Path(__file__).parents[1] / "examples" / "distributed" / "train.py"


class Workers:
    """Both of them, started with one command each."""

    def __init__(self, folder, balancer):
        ports = free_ports(2)
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        self.processes = []
        for index in range(2):
            task = {"type": "worker", "index": index}
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, str(SCRIPT), "--folder", str(folder), "--balancer", balancer],
                    env={
                        **os.environ,
                        "TF_CPP_MIN_LOG_LEVEL": "3",
                        "TF_CONFIG": json.dumps({"cluster": cluster, "task": task}),
                    },
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )

    def finish(self):
        """What each has printed, once both have ended well."""
        printed = [each.communicate(timeout=300)[0].splitlines() for each in self.processes]
        assert [each.returncode for each in self.processes] == [0, 0], printed
        return printed

    def kill(self):
        for each in self.processes:
            if each.poll() is None:
                each.send_signal(signal.SIGKILL)
            each.communicate()


def test_killed_and_started_again_they_end_as_if_nothing_had_been(tmp_path):
    unbroken = Workers(tmp_path / "unbroken", "nmt")
    printed = unbroken.finish()
    assert printed[0] == printed[1]
    assert len(printed[0]) == 8

    killed = Workers(tmp_path / "killed", "nmt")
    victim = killed.processes[1]
    try:
        for line in victim.stdout:
            if line.startswith("epoch 6 stage 2"):  # the next epoch is under way
                victim.send_signal(signal.SIGKILL)
                break
        assert victim.wait() == -signal.SIGKILL
    finally:
        killed.kill()
    assert not (tmp_path / "killed" / "final.npz").exists()

    again = Workers(tmp_path / "killed", "nmt").finish()
    assert again[0] == printed[0][-len(again[0]) :]
    assert len(again[0]) < 8
    with (
        np.load(tmp_path / "unbroken" / "final.npz") as one,
        np.load(tmp_path / "killed" / "final.npz") as other,
    ):
        for name in one:
            np.testing.assert_array_equal(other[name], one[name])
    assert not (tmp_path / "killed" / "backup").exists()
