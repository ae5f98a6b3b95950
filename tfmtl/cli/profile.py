"""``tfmtl profile``."""

from __future__ import annotations

import click

from tfmtl.cli.common import (
    BALANCERS,
    DATA,
    OUT,
    PATH,
    Command,
    check_path,
    completes,
    console,
    names_option,
    say,
)


@click.command(cls=Command)
@click.option(
    "--data",
    type=click.Choice(("synthetic", *DATA)),
    default="synthetic",
    show_default=True,
    help="Random rows of the shape that the options give, or a data set's.",
)
@PATH
@click.option(
    "--model",
    "kind",
    type=click.Choice(["mmoe", "ple", "shared_bottom"]),
    default="mmoe",
    show_default=True,
    help="The backbone.",
)
@click.option(
    "--balancer",
    default="EqualWeights",
    show_default=True,
    shell_complete=completes(*BALANCERS),
    help="One of `tfmtl balancers`, with its options as in PUB:rescale=sum+update_every=1.",
)
@click.option(
    "--optimizer", default="adam", show_default=True, help="One of Keras' or tfmtl's, by name."
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=4096, show_default=True, help="Rows a step."
)
@click.option(
    "--tasks", type=click.IntRange(min=2), default=2, show_default=True, help="How many of them."
)
@click.option(
    "--columns", type=click.IntRange(min=1), default=16, show_default=True, help="How many of ids."
)
@click.option(
    "--rows", type=click.IntRange(min=1), default=10_000, show_default=True, help="Ids a column."
)
@click.option(
    "--width", type=click.IntRange(min=1), default=16, show_default=True, help="Of embeddings."
)
@click.option(
    "--numbers",
    type=click.IntRange(min=0),
    default=63,
    show_default=True,
    help="How many columns of numbers.",
)
@click.option(
    "--experts",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="How many: of MMoE; in PLE of each group.",
)
@click.option(
    "--units",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Width of an expert, or of the shared bottom.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="How many to time, and to profile.",
)
@click.option(
    "--warm-up", type=click.IntRange(min=1), default=5, show_default=True, help="Steps before."
)
@click.option(
    "--jit/--no-jit", default=None, help="Whether XLA compiles the step.  [default: Keras' choice]"
)
@click.option("--out", type=OUT, help="Folder for the tables and the trace.")
def profile(
    data,
    path,
    kind,
    balancer,
    optimizer,
    batch,
    tasks,
    columns,
    rows,
    width,
    numbers,
    experts,
    units,
    steps,
    warm_up,
    jit,
    out,
):
    """Show where the time of a training step goes.

    Trains a few steps under TensorFlow's profiler and prints milliseconds by part of the step, by
    type of op and by op. The default is a backbone of the papers' size. With another --data
    the data set says what the columns are.
    """
    from tfmtl import optimizers
    from tfmtl.experiments.sources import SOURCES, load
    from tfmtl.names import BALANCED, balancer_of
    from tfmtl.profiling import profile, workload

    with names_option("--balancer", ValueError):
        if balancer.partition(":")[0] not in BALANCED:
            raise ValueError(f"expected one of {list(BALANCED)}. Received: {balancer!r}")
        weighing = balancer_of(balancer, ())
    with names_option("--optimizer", ValueError):
        optimizers.named(optimizer)
    check_path(data, path)
    names = tuple(f"task_{i}" for i in range(tasks))
    if data in SOURCES:
        names = tuple(t for t in SOURCES[data].tasks if t not in SOURCES[data].regression)
    if len(names) < tasks:
        raise click.BadParameter(
            f"expected at most {len(names)}, the tasks of {data}. Received: {tasks}",
            param_hint="--tasks",
        )
    names = names[:tasks]
    if data == "synthetic":
        features = workload.spec(columns, rows, width, numbers)
        dataset = workload.synthetic(names, features, batch)
    else:
        try:
            with names_option("--path", ValueError, OSError):
                splits = load(data, None if path is None else str(path), names, width)
        except ImportError as error:
            raise click.ClickException(str(error)) from error
        features = splits.features
        with names_option("--batch", ValueError):
            dataset = splits.train.batches(batch, shuffle=True, seed=0, drop_remainder=True)
    net = workload.network(kind, names, features, experts, units)
    found = profile(
        workload.compiled(net, weighing, optimizer, jit),
        dataset,
        steps,
        warm_up=warm_up,
        folder=out,
        title=f"{kind}, {balancer}, {optimizer}, {tasks} tasks, {data} rows, batch {batch:,}",
        verbose=True,
    )
    console().print(found)
    if out is not None:
        say(out, ["profile.md", "ops.csv", "plugins/profile/"])
