"""The examples run as their first lines say, made short."""

import csv
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def run(name, *arguments, folder):
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_toy_draws_its_figure_and_counts_the_starts(tmp_path):
    methods = ["EqualWeights", "PUB", "NMT"]
    done = run("toy.py", "--steps", 400, "--methods", ",".join(methods), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "runs/toy/toy.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["method"] for row in rows) == sorted(methods)
    assert max(int(row["starts at the best"]) for row in rows) >= 1
    assert (tmp_path / "runs/toy/toy.png").read_bytes().startswith(b"\x89PNG")


def test_the_toy_names_a_method_that_it_does_not_know(tmp_path):
    done = run("toy.py", "--methods", "PUB,Nobody", folder=tmp_path)
    assert done.returncode == 2
    assert "['Nobody']" in done.stderr
