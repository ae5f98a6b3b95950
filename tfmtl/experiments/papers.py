"""What a comparison leaves for its readers: tables and pictures, from its runs' records."""

from __future__ import annotations

import pathlib
import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from tfmtl import files
from tfmtl.experiments import plots, priority, tables, updates
from tfmtl.experiments.panel import ALONE, MODELS, Panel
from tfmtl.experiments.plan import Plan
from tfmtl.experiments.runs import Run
from tfmtl.statistics import Paired, paired

#: Differences from the reference with a smaller p are marked.
SIGNIFICANT = 0.05
#: Options that say nothing of what was compared.
_LEFT_OUT = ("--out", "--results", "--workers")


def table(panels: Sequence[Panel], reference: str) -> str:
    """The rows of panels of the same tasks, in Markdown.

    Args:
        panels: one for each model.
        reference: the method that others are tested against.
    """
    tasks, measures = panels[0].tasks, panels[0].measures
    overall = "mean AUC" if panels[0].ranked else "−Δm%"
    head = ["model", "method", *(f"{task} {measures[task].upper()}" for task in tasks)]
    head += [overall] if panels[0].ranked else []
    head += [
        f"{overall} against {tables.label(reference)} [95 %]",
        "p",
        "rank",
        "Δm%",
        "s an epoch",
        "s a run",
    ]
    lines = [head, ["---"] * len(head)]
    for panel in panels:
        ranks = panel.ranks()
        for method, values in panel.values.items():
            run, epoch = panel.seconds[method].T
            cells = [tables.spread(values[:, i]) for i in range(len(tasks))]
            cells += [tables.spread(panel.overall[method])] if panel.ranked else []
            difference = ["–", "–"]
            if method not in (reference, ALONE):
                difference = _difference(paired(panel.overall[method], panel.overall[reference]))
            drop = panel.drop(values.mean(axis=0))
            lines.append(
                [
                    MODELS[panel.model],
                    tables.label(method),
                    *cells,
                    *difference,
                    f"{ranks[method]:.1f}" if method in ranks else "–",
                    "–" if method == ALONE or np.isnan(drop) else f"{drop:+.2f}",
                    tables.spread(epoch, 1),
                    f"{run.mean():.0f}",
                ]
            )
    return tables.markdown(lines)


def _difference(found: Paired) -> list[str]:
    mark = ("‡" if found.mean > 0 else "†") if found.p < SIGNIFICANT else ""
    return [
        f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]{mark}",
        "–" if np.isnan(found.p) else f"{found.p:.3f}",
    ]


def write(
    plan: Plan,
    runs: Sequence[Run],
    records: Sequence[Mapping],
    folder: pathlib.Path,
    *,
    path: str | None = None,
    arguments: Sequence[str] = (),
    name: str = "report.md",
) -> list[str]:
    """Write the plan's tables and its pictures.

    Args:
        plan: what was compared.
        runs: all of it.
        records: of the runs.
        folder: where to; the predictions of runs are looked for in its ``runs/``.
        path: where the data set is.
        arguments: of the command, to be shown.
        name: of the text.

    Returns:
        The names of the files.
    """
    panels = Panel.of(plan, runs, records)
    text, names = [f"# {plan.title}\n"], [name]
    if arguments:
        text.append(f"`{command_line(arguments)}`\n")
    text.append(_made(plan, records))
    for tasks in plan.tasks:
        own = [panel for panel in panels if panel.tasks == tasks]
        text += [f"## {' ≻ '.join(tasks)}\n", table(own, plan.reference)]
        picture = f"{'-'.join(tasks)}.png"
        plots.boxes(own, plan.reference, folder / picture)
        names.append(picture)
        text.append(f"![Every seed of every method]({picture})\n")
        if priority.applies(own[0]):
            parts, made = priority.write(own, folder, path)
            text, names = [*text, *parts], [*names, *made]
    if plan.settings.similarity:
        plots.similarity(panels, folder / "updates.png")
        names.append("updates.png")
        text += ["## Gradients and updates\n", updates.table(panels, plan.reference)]
        text.append("![Diff against the mean AUC](updates.png)\n")
    with files.written(folder / name) as beside:
        pathlib.Path(beside).write_text("\n".join(text))
    return names


def _made(plan: Plan, records: Sequence[Mapping]) -> str:
    s = plan.settings
    stacks = sorted({f"TensorFlow {r['tensorflow']}, Keras {r['keras']}" for r in records})
    tried = "; ".join(f"{k} of {list(v)}" for k, v in plan.trials.items())
    trials = f" Each method with what validation speaks for in seed 0: {tried}." if tried else ""
    by = {"loss": "the tasks' losses", "mean": "the tasks' AUCs", "primary": "the primary's AUC"}
    rate = "" if "learning_rate" in plan.trials else f" {s.learning_rate:g}"
    return (
        f"{plan.data}; {s.experts} experts of {list(s.expert_units)}, towers of "
        f"{list(s.tower_units)}, embeddings of {s.embedding_width}; {s.optimizer}{rate}, batches "
        f"of {s.batch_size}; at most {s.epochs} epochs (for NMT: a stage), early stopping on "
        f"held-out rows by {by[s.monitor]}; {plan.seeds} seeds.{trials} {'; '.join(stacks)}.\n\n"
        "Test rows, mean ± standard deviation over seeds. In brackets the 95 % bootstrap interval "
        "of the mean difference over seeds, paired by seed; p of the paired t-test; ‡ better and "
        f"† worse, p < {SIGNIFICANT}, not corrected for the number of comparisons. Rank: mean over "
        "tasks, 1 the best. Δm%: mean relative drop against each task alone, lower is better. "
        "Seconds are rough where runs share the machine.\n"
    )


def command_line(arguments: Sequence[str]) -> str:
    """The command as others would type it, without what is of one machine alone."""
    shown = []
    rest = iter(arguments)
    for argument in rest:
        option, given, _ = argument.partition("=")
        if option in _LEFT_OUT:
            if not given:
                next(rest, None)
        elif option == "--path":
            if not given:
                next(rest, None)
            shown += ["--path", "FOLDER"]
        else:
            place = pathlib.PurePath(argument)
            shown.append(place.name if place.is_absolute() else argument)
    return shlex.join(["tfmtl", *shown])
