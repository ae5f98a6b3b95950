"""Is the primary task held, without tuning? NMT beside weighted sums in every architecture."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from tfmtl.data import Rows
from tfmtl.experiments import plots, tables
from tfmtl.experiments.panel import ALONE, Panel
from tfmtl.experiments.runs import read_csv, write_csv
from tfmtl.experiments.settings import LEARNT_SHARE, is_nmt, weighted_sums
from tfmtl.experiments.sources import SOURCES, load
from tfmtl.experiments.statistics import Difference, differences

#: How a table calls the weighted sum that validation rows speak for.
CHOSEN = "chosen"
_FIELDS = ("mean", "low", "high", "deviation")


def applies(panel: Panel) -> bool:
    """Whether there is something to hold a task, each task alone, and a weighted sum beside it."""
    methods = panel.values.keys()
    return any(map(is_nmt, methods)) and ALONE in methods and bool(weighted_sums(methods))


def write(
    panels: Sequence[Panel], folder: pathlib.Path, name: str, path: str | None
) -> tuple[list[str], list[str]]:
    """What a plan with NMT has beside its table: verdicts, the plane of the two tasks, traces.

    Args:
        panels: of the same tasks, one for each model.
        folder: where to, and where ``runs/`` with the predictions is.
        name: of the files.
        path: where the data set is.

    Returns:
        Parts of the text, and the names of the files.
    """
    against = _against_alone(panels, folder, name, path)
    parts, names = ["### Held, and learnt\n"], []
    if against:
        parts.append(table(panels, against))
        names.append(f"{name}-differences.csv")
    else:
        parts.append("Not told: the runs' predictions are not here.\n")
    plots.planes(panels, folder / f"{name}-plane.png")
    names.append(f"{name}-plane.png")
    parts.append(f"![Both tasks, every weighting and NMT]({name}-plane.png)\n")
    traced = [
        (panel, folder / "runs" / run.key / "trace.csv")
        for panel in panels
        for run in panel.runs
        if run.method == "nmt" and run.seed == 0
    ]
    if traced and all(trace.exists() for _, trace in traced):
        # One architecture is enough to look at: the last one, the largest.
        panel, trace = traced[-1]
        plots.traces(read_csv(trace), panel.tasks, folder / f"{name}-traces.png")
    if (folder / f"{name}-traces.png").exists():
        names.append(f"{name}-traces.png")
        parts.append(
            f"![λ, the primary loss against its baseline, the secondary loss]({name}-traces.png)\n"
        )
    return parts, names


def table(panels: Sequence[Panel], against: Mapping[str, Mapping[str, Difference]]) -> str:
    """For each model and method that promises it: the primary held, the others learnt.

    Args:
        panels: of the same tasks, one for each model.
        against: for each model and method the primary task's difference to training it alone.
    """
    tasks = panels[0].tasks
    margin = SOURCES[panels[0].runs[0].data].held_margin
    head = ["model", "method", f"{tasks[0]} against alone [95 %]", "held"]
    head += [f"{task} learnt" for task in tasks[1:]]
    head += [f"{task} against the chosen sum" for task in tasks]
    lines = [head, ["---"] * len(head)]
    for panel in panels:
        picks = chosen(panel, margin)
        sums = panel.values[picks[0]].copy()
        for seed, pick in enumerate(picks):
            sums[seed] = panel.values[pick][seed]
        alone = panel.values[ALONE].mean(axis=0)
        rows = {m: values for m, values in panel.values.items() if is_nmt(m)}
        for method, values in {**rows, CHOSEN: sums}.items():
            d = against[panel.model][method]
            held = d.mean >= -margin and d.high >= 0
            share = (values.mean(axis=0) - 0.5) / (alone - 0.5)
            label = tables.label(method)
            if method == CHOSEN:
                label = f"the sum chosen on validation: {', '.join(p[4:] for p in picks)}"
            compared = values - sums
            lines.append(
                [
                    panel.title.partition(":")[0],
                    label,
                    f"{d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}]",
                    "yes" if held else "**no**",
                    *(
                        f"{each:.0%}" if each >= LEARNT_SHARE else f"**{each:.0%}**"
                        for each in share[1:]
                    ),
                    *(
                        "–" if method == CHOSEN else f"{compared[:, i].mean():+.4f}"
                        for i in range(len(tasks))
                    ),
                ]
            )
    return tables.markdown(lines) + (
        f"\nHeld: the mean difference is at least −{margin} and its interval (bootstrap over test "
        f"rows or users) does not lie below 0. Learnt: the way from 0.5 to the task's own "
        f"single-task AUC, {LEARNT_SHARE:.0%} asked for. The chosen sum is, in each seed, the one "
        f"with the best mean of the other tasks' validation AUCs among those whose primary "
        f"validation AUC is within {margin} of the best sum's.\n"
    )


def chosen(panel: Panel, margin: float) -> list[str]:
    """For each seed the weighted sum that validation rows speak for."""
    found = []
    for seed in sorted({run.seed for run in panel.runs}):
        records = {
            run.method: record
            for run, record in zip(panel.runs, panel.records, strict=True)
            if run.seed == seed
        }
        sums = weighted_sums(records)
        scores = np.array(
            [[float(records[m][f"validation_auc_{t}"]) for t in panel.tasks] for m in sums]
        )
        near = scores[:, 0] >= scores[:, 0].max() - margin
        found.append(sums[int(np.argmax(np.where(near, scores[:, 1:].mean(axis=1), -1)))])
    return found


def _against_alone(panels, folder, name, path) -> dict[str, dict[str, Difference]]:
    """From the runs' predictions; where these are not there, as they were written before, if so."""
    kept = folder / f"{name}-differences.csv"
    runs = [run for panel in panels for run in panel.runs]
    if not all((folder / "runs" / run.key / "test.npz").exists() for run in runs):
        found: dict[str, dict[str, Difference]] = {}
        for row in read_csv(kept) if kept.exists() else []:
            values = Difference(*(float(row[field]) for field in _FIELDS))
            found.setdefault(row["model"], {})[row["method"]] = values
        return found
    settings = runs[0].settings
    test = load(runs[0].data, path, settings.tasks, settings.embedding_width).test
    found = {panel.model: _differences(panel, folder, test) for panel in panels}
    write_csv(
        kept,
        [
            {"model": model, "method": method, **{f: getattr(each, f) for f in _FIELDS}}
            for model, methods in found.items()
            for method, each in methods.items()
        ],
    )
    return found


def _differences(panel: Panel, folder: pathlib.Path, test: Rows) -> dict[str, Difference]:
    task = panel.tasks[0]
    picks = chosen(panel, SOURCES[panel.runs[0].data].held_margin)
    alone = f"single:{task}"
    scores: dict[str, list] = {}
    for run in sorted(panel.runs, key=lambda run: run.seed):
        names = [run.method] if run.method == alone or is_nmt(run.method) else []
        names += [CHOSEN] if run.method == picks[run.seed] else []
        for name in names:
            with np.load(folder / "runs" / run.key / "test.npz") as found:
                scores.setdefault(name, []).append(found[task])
    return differences(test.labels[task], scores, alone, groups=test.groups)
