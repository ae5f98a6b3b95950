"""Finding the weights alone, as it is done inside a compiled step."""

import tensorflow as tf

import tfmtl
from benchmarks.cases import Case
from benchmarks.rows import gramians


def search(balancer: str, tasks: int, rank: int, jit: bool) -> Case:
    """One weighing after the other, of many Gram matrices, in one graph.

    Args:
        balancer: its class name.
        tasks: how many.
        rank: of the Gram matrices.
        jit: compiled by XLA.
    """
    found = getattr(tfmtl.balancers, balancer)()
    found.bind([f"task_{i}" for i in range(tasks)])
    calls = max(10, 200 // tasks)
    matrices = tf.constant(gramians(calls, tasks, rank))

    @tf.function(jit_compile=jit, autograph=False)
    def weigh(matrices):
        _, total = tf.while_loop(
            lambda i, total: i < calls,
            lambda i, total: (i + 1, total + found.weights(matrices[i])),
            (0, tf.zeros([tasks])),
            parallel_iterations=1,
        )
        return total

    def run(steps):
        for _ in range(steps):
            total = weigh(matrices)
        if not tf.reduce_all(tf.math.is_finite(total)):
            raise ValueError(f"{balancer} found weights that are not finite.")

    return Case(run, per=calls)
