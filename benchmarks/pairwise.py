"""Time and memory of the pairwise logistic loss, ours against TF-Ranking's.

Forward and backward in a `tf.function`, 256 lists. All are timed in turn in one process, so that
what else the machine does meets all of them, and a ratio is the median of those of the rounds.
Memory is by how much the peak of the resident set grew, in a process of its own for each, after a
warm-up on two small lists. Linux.

    python benchmarks/pairwise.py --out pairwise.md
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

BATCH = 256
LABELS = {"graded": "grades 0-4", "few": "5 % positive"}
METHODS = {"theirs": "TF-Ranking", "ours": "tfmtl", "ours_xla": "tfmtl, jit_compile=True"}


def make_rows(batch, size, labels):
    import numpy as np

    rng = np.random.default_rng(0)
    graded = rng.integers(0, 5, (batch, size))
    few = rng.random((batch, size)) < 0.05
    chosen = graded if labels == "graded" else few
    # No two scores of a list are equal: theirs has a gradient of 0 there instead of -1/2.
    scores = rng.permuted(np.tile(np.linspace(-3, 3, size), (batch, 1)), axis=1)
    return chosen.astype("float32"), scores.astype("float32")


def make_step(method):
    """Labels and scores to value and gradient of the mean over pairs."""
    import tensorflow as tf

    from tfmtl import compat, losses

    if method == "theirs":
        loss = compat.tensorflow_ranking().losses_impl.PairwiseLogisticLoss(name="theirs")

        def value(labels, scores):
            each, weights = loss.compute_unreduced_loss(labels, scores)
            return tf.reduce_sum(each * weights) / tf.reduce_sum(weights)
    else:
        loss = losses.PairwiseLogistic(jit_compile=method == "ours_xla")

        def value(labels, scores):
            total, count = loss.sums(labels, scores)
            return total / count

    def step(labels, scores):
        with tf.GradientTape() as tape:
            tape.watch(scores)
            found = value(labels, scores)
        return found, tape.gradient(found, scores)

    return tf.function(step, autograph=False)


def measure_time(size, labels, rounds):
    import numpy as np
    import tensorflow as tf

    rows = [tf.constant(each) for each in make_rows(BATCH, size, labels)]
    steps = {method: make_step(method) for method in METHODS}
    found = {method: step(*rows) for method, step in steps.items()}
    for method in METHODS:
        np.testing.assert_allclose(found[method][0], found["theirs"][0], rtol=1e-4)
        np.testing.assert_allclose(found[method][1], found["theirs"][1], rtol=1e-3, atol=1e-8)
    times = {method: [] for method in METHODS}
    for _ in range(rounds):
        for method, step in steps.items():
            start = time.perf_counter()
            step(*rows)[1].numpy()
            times[method].append(1e3 * (time.perf_counter() - start))
    return times


def measure_memory(size, labels, method):
    import tensorflow as tf

    step = make_step(method)
    step(*(tf.constant(each) for each in make_rows(2, 8, labels)))
    rows = [tf.constant(each) for each in make_rows(BATCH, size, labels)]
    before = peak()
    for _ in range(3):
        step(*rows)
    return peak() - before


def peak():
    """The high-water mark of this process's resident set, in MB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def in_a_process(*arguments):
    command = [sys.executable, __file__, "--child", json.dumps(arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(sizes, rounds):
    import keras
    import numpy as np
    import tensorflow as tf

    lines = [
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {os.cpu_count()} cores "
        f"({platform.machine()}), {BATCH} lists, {rounds} rounds; milliseconds forward and "
        "backward: median (quartiles); MB: growth of the peak.",
        "",
        "| list size | labels | loss | ms | times faster | MB | share of the memory |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for size in sizes:
        for labels, words in LABELS.items():
            times = in_a_process("time", size, labels, rounds)
            memory = {m: in_a_process("memory", size, labels, m) for m in METHODS}
            theirs = np.array(times["theirs"])
            for method, name in METHODS.items():
                mine = np.array(times[method])
                low, middle, high = np.percentile(mine, [25, 50, 75])
                lines.append(
                    f"| {size} | {words} | {name} | {middle:.0f} ({low:.0f}-{high:.0f}) "
                    f"| {np.median(theirs / mine):.1f} | {memory[method]:.0f} "
                    f"| {memory[method] / max(memory['theirs'], 1):.2f} |"
                )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, help="write the table there too")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 500])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        what, *given = json.loads(arguments.child)
        print(json.dumps((measure_time if what == "time" else measure_memory)(*given)))
        return
    text = table(arguments.sizes, arguments.rounds)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
