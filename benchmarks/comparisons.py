"""Every comparison: who is in it and what must hold."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from benchmarks.plan import PEERS, STACKS, TITLES, Against, Comparison, Contender, Heat, Readings
from benchmarks.rows import Shape

EQUAL = "equal weights"
LOSS_LEVEL = ["FixedWeights", "Uncertainty", "DWA", "RLW", "SI", "IMTLL", "BanditMTL", "FAMO"]
SEARCHING = ["PUB", "NashMTL", "EMTL", "MGDA", "PCGrad", "CAGrad", "IMTLG"]
EVERY_METHOD = LOSS_LEVEL, SEARCHING, SEARCHING
GRAMIAN = ["MGDA", "PCGrad", "CAGrad", "IMTLG", "NashMTL", "GradNorm", "EMTL", "PUB"]
#: TorchJD's aggregators of methods that are here as well, with the arguments that they need.
TORCHJD = {
    "MGDA": lambda tasks: {},
    "PCGrad": lambda tasks: {},
    "CAGrad": lambda tasks: {"c": 0.4},
    "IMTLG": lambda tasks: {},
    "NashMTL": lambda tasks: {"n_tasks": tasks},
}


def make(quick: bool, scratch: pathlib.Path) -> list[Comparison]:
    """All comparisons.

    Args:
        quick: fewer contenders and rounds.
        scratch: an empty folder for files of rows.
    """
    found = [
        embedding(quick),
        backbone(quick),
        methods(2, Shape(tasks=2), quick),
        methods(8, Shape(tasks=8, experts=4, units=128), quick),
        weights(quick),
        pairwise(quick),
        memory(),
        stream(scratch),
    ]
    left_out = {"methods-8", "memory", "stream"} if quick else set()
    return [each for each in found if each.name not in left_out]


def balancer(name: str, **arguments) -> dict:
    return {"name": name, "arguments": arguments}


def ours(label, stack, shape: Shape, balancer=None, jit=None, **options) -> Contender:
    arguments = {"shape": dataclasses.asdict(shape), "balancer": balancer, "jit": jit}
    return Contender(label, stack, "steps.ours", arguments, **options)


def stock(label, stack, shape: Shape, jit=None, dot=False, **options) -> Contender:
    arguments = {"shape": dataclasses.asdict(shape), "jit": jit, "dot": dot}
    return Contender(label, stack, "steps.stock", arguments, **options)


def embedding(quick: bool) -> Comparison:
    """A step against the rows of the tables."""
    few, many, most = 200_000, 5_000_000, 50_000_000
    methods = {EQUAL: None}
    if not quick:
        methods |= {
            "NMT, constrained stage": balancer("NMT"),
            "PUB, every step": balancer("PUB", update_every=1),
            "MGDA, every step": balancer("MGDA"),
        }

    def small(rows):
        return Shape(rows=rows, numbers=0, experts=0, units=64)

    def heat(title, build, stacks, large, limit):
        contenders = []
        for stack in stacks:
            for rows in (few, large):
                label = f"{rows:,} rows"
                ratio = Against(f"{few:,} rows", f"× {few:,} rows", limit)
                against = [ratio] if rows > few else []
                contenders.append(build(label, stack, small(rows), against=against, process=label))
        return Heat(title, contenders, rounds=3 if quick else 7, shown=("ms", "MB"))

    heats = []
    for title, chosen in methods.items():

        def build(label, stack, shape, chosen=chosen, **options):
            return ours(label, stack, shape, chosen, **options)

        heats.append(heat(title, build, STACKS, many, 1.5))
        if title == EQUAL and not quick:
            # One stack at a time: weights and slots alone are 9.6 GB.
            heats += [
                dataclasses.replace(
                    heat(title, build, [stack], most, 2.0),
                    title=f"{title}, the largest table, {TITLES[stack]}",
                )
                for stack in STACKS
            ]
    if not quick:
        heats.append(heat("Keras' layers and Adam", stock, STACKS, many, None))
    return Comparison(
        "embedding",
        "Embedding tables: a step by the rows of the tables",
        "A shared bottom of 64, two tasks, 16 categorical columns of width 16, batch 4,096. "
        "`tfmtl.optimizers.LazyAdam`, and for contrast stock Keras layers with Keras' Adam. "
        "Rows are those of all columns together, ids are uniform. MB: peak resident memory of a "
        "process with this contender alone.",
        heats,
    )


def backbone(quick: bool) -> Comparison:
    """Equal weights on the papers' backbone against stock Keras and PyTorch."""
    shape = Shape()
    arguments = {"shape": dataclasses.asdict(shape)}
    torches = {"PyTorch": {}}
    if not quick:
        torches["PyTorch, sparse"] = {"sparse": True}
        torches["PyTorch, compiled"] = {"compiled": True}
    contenders = [
        Contender(label, PEERS, "pytorch.plain", {**arguments, **options})
        for label, options in torches.items()
    ]
    for stack in STACKS:
        modes = {"": None}
        if stack == "tf221" and not quick:
            modes[", jit_compile=False"] = False
        for suffix, jit in modes.items():
            theirs = f"stock Keras{suffix}"
            dot = f"stock Keras, Dot{suffix}"
            against = [Against(theirs, "× stock Keras", 0.7)]
            if jit is None:
                against += [Against(t, f"× {t}", 1.0, PEERS) for t in torches]
            contenders += [
                ours(f"tfmtl{suffix}", stack, shape, jit=jit, against=against),
                stock(theirs, stack, shape, jit=jit),
            ]
            if not quick:
                against.append(Against(dot, "× stock Keras, Dot"))
                contenders.append(stock(dot, stack, shape, jit=jit, dot=True))
        part = [Against("tfmtl", "part of tfmtl's step")]
        contenders.append(
            Contender("the experts' products", stack, "steps.products", arguments, against=part)
        )

    def notes(readings: Sequence[Readings]) -> list[str]:
        found = []
        for stack in STACKS:
            reading = readings[0][stack, "the experts' products"]
            if not reading.error:
                work, ms = reading.figures["GFLOP"][0], np.median(reading.figures["ms"])
                found.append(
                    f"{TITLES[stack]}: the three products of the experts' layer (forward, and for "
                    f"the gradients of its weights and inputs; {work:.1f} GFLOP) run at "
                    f"{1e3 * work / ms:.0f} GFLOP/s."
                )
        return found

    heat = Heat(
        "",
        contenders,
        rounds=3 if quick else 9,
        turn=0.4 if quick else 0.8,
        shown=("ms", "parameters"),
    )
    return Comparison(
        "backbone",
        "The papers' backbone, equal weights",
        "MMoE: 8 experts of 256, towers of 32, two tasks, 16 columns of 10,000 ids of width 16, 63 "
        "numbers, batch 4,096. tfmtl with LazyAdam. The same model in stock Keras layers with "
        "Keras' Adam: an `Embedding` a column, a `Dense` an expert, gate times experts summed; "
        "with *Dot* that is a batched product, as tfmtl and the PyTorch model have it. In PyTorch "
        "with experts as one product and `torch.optim.Adam`; with sparse gradients and "
        "`SparseAdam` for the embeddings; through `torch.compile`. `jit_compile` is Keras' default "
        "but where it is named. The experts' products are plain `tf.matmul`: what of a step is "
        "multiplying matrices.",
        [heat],
        notes,
    )


def methods(tasks: int, shape: Shape, quick: bool) -> Comparison:
    """Each method over equal weights, and against TorchJD's."""
    by_loss, by_ten, by_step = (["Uncertainty"], ["PUB"], ["MGDA"]) if quick else EVERY_METHOD
    asked = dataclasses.asdict(shape)
    plain = f"PyTorch, {EQUAL}"
    # Elsewhere the heats' titles say so.
    in_ten, in_each = (", every 10 steps", ", every step") if quick else ("", "")

    def over_equal(limit):
        return Against(EQUAL, f"× {EQUAL}", limit)

    def method(stack, name, limit, suffix="", *others, cycle=1, **arguments):
        return ours(
            f"{name}{suffix}",
            stack,
            shape,
            balancer(name, **arguments),
            against=[over_equal(limit), *others],
            cycle=cycle,
        )

    losses, tens, steps = [], [], []
    for stack in STACKS:
        equal = ours(EQUAL, stack, shape)
        losses += [equal, *(method(stack, name, 1.03) for name in by_loss)]
        losses.append(method(stack, "NMT", 1.05, ", constrained"))
        tens += [dataclasses.replace(equal, cycle=5)] * (not quick)
        tens += [method(stack, name, 1.10, in_ten, cycle=10, update_every=10) for name in by_ten]
        steps += [equal] * (not quick)
        for name in by_step:
            theirs = [Against(f"TorchJD's {name}", "× TorchJD", 1.0, PEERS)]
            others = theirs if name in TORCHJD else []
            limit = 1 + 0.75 * (tasks - 1)
            steps.append(method(stack, name, limit, in_each, *others, update_every=1))
    steps.append(Contender(plain, PEERS, "pytorch.plain", {"shape": asked}))

    def torchjd(name, suffix="", **options):
        arguments = {"shape": asked, "aggregator": name, "arguments": TORCHJD[name](tasks)}
        against = [Against(plain, f"× {EQUAL}")]
        label = f"TorchJD's {name}{suffix}"
        return Contender(label, PEERS, "pytorch.torchjd", {**arguments, **options}, against)

    steps += [torchjd(name) for name in by_step if name in TORCHJD]
    if quick:
        heats = [Heat("", [*losses, *tens, *steps], rounds=3, turn=0.2)]
    else:
        steps.append(torchjd("MGDA", ", a task at a time", chunk=1))
        heats = [
            Heat("From losses", losses, rounds=11, turn=0.4),
            Heat("Every 10 steps", tens, rounds=5, turn=1.0),
            Heat("Every step", steps, rounds=5, turn=0.4),
        ]
    return Comparison(
        f"methods-{tasks}",
        f"Methods, {tasks} tasks",
        f"MMoE of {shape.experts} experts of {shape.units}, the rest as in the papers' backbone, "
        f"{tasks} tasks, LazyAdam. NMT is led into its last stage, where every other task is held, "
        "through its own `advance`. Methods find their weights from losses, or search them every "
        "10 steps (a turn is then a multiple of 10 steps), or every step. FAMO reads the losses "
        "again after each step: a second pass forward. TorchJD aggregates the "
        "gradients of the shared parameters (`mtl_backward`) of the PyTorch model in every step.",
        heats,
    )


def weights(quick: bool) -> Comparison:
    """Finding the weights alone."""
    limits = {2: 1.0, 32: 5.0}

    def contenders(tasks, limit):
        for stack in STACKS:
            for name in ["NashMTL"] if quick else GRAMIAN:
                for suffix, rank in [("", tasks), (f", rank {tasks // 2}", tasks // 2)]:
                    arguments = {
                        "balancer": name,
                        "tasks": tasks,
                        "rank": rank,
                        "jit": stack == "tf221",
                    }
                    yield Contender(
                        f"{name}{suffix}", stack, "weights.search", arguments, limit=limit
                    )

    heats = [
        Heat(f"{tasks} tasks", list(contenders(tasks, limit)), rounds=3 if quick else 5, turn=0.05)
        for tasks, limit in limits.items()
    ]
    return Comparison(
        "weights",
        "Finding the weights alone",
        "`balancer.weights(gramian)` of random Gram matrices, one after the other in one compiled "
        "graph; milliseconds for one. They are of full rank but where another is named. With XLA "
        "on TensorFlow 2.21 and without on 2.15, as Keras has it by default.",
        heats,
    )


def pairwise(quick: bool) -> Comparison:
    """The pairwise logistic loss against TF-Ranking's and keras-rs'."""
    words = {"graded": "grades 0-4", "few": "5 % positive"}
    sizes, kinds = ([200], ["graded"]) if quick else ([50, 200, 500], list(words))

    def contenders(case, size, labels, apart=False):
        def one(name, environment, whose, jit, *against):
            return Contender(
                name,
                environment,
                case,
                {"whose": whose, "size": size, "labels": labels, "jit": jit},
                against=[Against(t, f"× {t.split(',')[0]}", environment=e) for t, e in against],
                process=name if apart else "",
            )

        rival, other = ("TF-Ranking", None), ("keras-rs", PEERS)
        found = [one("keras-rs", PEERS, "keras-rs", False)]
        found.append(one("keras-rs, jit_compile", PEERS, "keras-rs", True))
        for stack in STACKS:
            both = [rival, other] if stack == "tf221" else [rival]
            xla = [rival, ("keras-rs, jit_compile", PEERS)] if stack == "tf221" else [rival]
            found += [
                one("TF-Ranking", stack, "tf-ranking", False),
                one("tfmtl", stack, "tfmtl", False, *both),
                one("tfmtl, jit_compile", stack, "tfmtl", True, *xla),
            ]
        return found

    heats = [
        Heat(
            f"Lists of {size}, {words[labels]}",
            contenders("pairwise.loss", size, labels),
            rounds=3 if quick else 7,
            turn=0.1,
        )
        for size in sizes
        for labels in kinds
    ]
    if not quick:
        heats += [
            Heat(
                f"Lists of {size}, memory",
                contenders("pairwise.memory", size, kinds[0], apart=True),
                figure="MB",
                shown=("MB",),
            )
            for size in sizes
        ]
    return Comparison(
        "pairwise",
        "Pairwise logistic loss",
        "Forward and backward in a `tf.function`, 256 lists; values and gradients of all are first "
        "checked against NumPy. With `jit_compile`, tfmtl's is compared with that of keras-rs, and "
        "with TF-Ranking's as it is. MB: growth of the peak of the resident set, in a process of "
        "its own for each, after a warm-up on two small lists.",
        heats,
    )


def memory() -> Comparison:
    """Peak of memory for n tasks."""
    contenders = []
    for tasks in [2, 4, 8]:
        shape = dataclasses.asdict(Shape(tasks=tasks))
        for stack in STACKS:
            base = f"{EQUAL}, {tasks} tasks"
            over_base = [Against(base, f"× {EQUAL}")]
            by_rows = balancer("MGDA", accumulate="gramian")
            for label, chosen, against in [
                (base, None, []),
                (f"MGDA, {tasks} tasks", balancer("MGDA"), over_base),
                (f"MGDA, accumulate=gramian, {tasks} tasks", by_rows, over_base),
            ]:
                arguments = {"shape": shape, "balancer": chosen}
                contenders.append(
                    Contender(label, stack, "steps.peak", arguments, against=against, process=label)
                )
    return Comparison(
        "memory",
        "Peak memory by the number of tasks",
        "The papers' backbone, every method in a process of its own, five steps; MGDA searches in "
        "every step, with all tasks' gradients at once and with one task's at a time. MB: peak of "
        "the resident set, and what of it was there before the model.",
        [Heat("", contenders, figure="MB", shown=("MB", "MB before"))],
    )


def stream(scratch: pathlib.Path) -> Comparison:
    """Rows from files."""
    sizes = [250_000, 1_000_000]
    folders = {rows: str(scratch / str(rows)) for rows in sizes}
    files = [
        Contender(f"{rows:,} rows", STACKS[0], "stream.write", {"folder": folder, "rows": rows})
        for rows, folder in folders.items()
    ]
    readers = [
        Contender(
            f"{rows:,} rows, {title}",
            stack,
            "stream.read",
            {"folder": folder, "fit": fit},
            process=f"{rows} {title}",
        )
        for rows, folder in folders.items()
        for fit, title in [(False, "the input alone"), (True, "`fit`")]
        for stack in STACKS
    ]
    shown = ("rows/s", "CPU µs/row", "learning, rows/s", "MB")
    return Comparison(
        "stream",
        "Streaming from files",
        "Files in AliExpress' format, read through the input alone and through `fit` of an MMoE of "
        "8 experts of 256, batch 4,096, a process for each. Quartiles are of windows of 10 "
        "batches. Learning is the pass that finds vocabularies and scales. In `fit` the input "
        "runs beside the step, on the same cores.",
        [
            Heat("Files", files, figure="MB on disk", shown=("MB on disk",)),
            Heat("Reading", readers, figure="rows/s", shown=shown, in_turn=True),
        ],
    )
