"""Is the primary task held, without tuning? NMT beside weighted sums in every architecture."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from tfmtl.experiments import plots, tables
from tfmtl.experiments.panel import ALONE, Panel
from tfmtl.experiments.runs import Run
from tfmtl.experiments.settings import LEARNT_SHARE
from tfmtl.experiments.sources import load, source_of
from tfmtl.files import read_csv, write_csv
from tfmtl.names import is_nmt, weighted_sums
from tfmtl.statistics import Difference, differences

#: How a table calls the weighted sum that validation rows speak for.
CHOSEN = "chosen"
#: Differences of less than the digits that the tables show.
SHOWN = 1e-4
_FIELDS = ("mean", "low", "high", "deviation")


def applies(panel: Panel) -> bool:
    """Whether a method promises to hold the primary task."""
    return any(map(is_nmt, panel.values))


def write(
    panels: Sequence[Panel], folder: pathlib.Path, path: str | None
) -> tuple[list[str], list[str]]:
    """What a plan with NMT has beside its table: verdicts, the plane of the two tasks, traces.

    Args:
        panels: of the same tasks, one for each model.
        folder: where to, and where ``runs/`` with the predictions is.
        path: where the data set is.

    Returns:
        Parts of the text, and the names of the files.
    """
    tasks = panels[0].tasks
    picture = "-".join(tasks)
    parts, names = [], []
    if panels[0].measures[tasks[0]] == "auc" and panels[0].alone(tasks[0]):
        parts.append("### Held, and learnt\n")
        kept = folder / f"{picture}-differences.csv"
        against = _against_alone(panels, folder, kept, path)
        parts.append(
            table(panels, against) if against else "Not told: the predictions are not here.\n"
        )
        names += [kept.name] if against else []
    plots.planes(panels, folder / f"{picture}-plane.png")
    names.append(f"{picture}-plane.png")
    parts.append(f"![Both tasks: weighted sums, joined, and NMT]({picture}-plane.png)\n")
    # One architecture is enough to look at: the last one, the largest.
    traced = folder / "runs" / panels[-1].key("nmt", 0) / "trace.csv"
    shown = folder / f"{picture}-traces.png"
    if traced.exists():
        plots.traces(read_csv(traced), tasks, shown)
    if shown.exists():
        names.append(shown.name)
        parts.append(f"![λ, the primary against its baseline, the secondary loss]({shown.name})\n")
    return parts, names


def table(panels: Sequence[Panel], against: Mapping[str, Mapping[str, Difference]]) -> str:
    """For each model and method that promises it: the primary held, the others learnt.

    Args:
        panels: of the same tasks, one for each model.
        against: for each model and method the primary task's difference to training it alone.
    """
    tasks = panels[0].tasks
    margin = source_of(panels[0].runs[0].data).held_margin
    head = ["model", "method", f"{tasks[0]} against alone [95 %]", "held"]
    head += [f"{task} learnt" for task in tasks[1:]]
    head += [*(f"{task} against the chosen sum" for task in tasks), "the sums' line"]
    lines = [head, ["---"] * len(head)]
    for panel in panels:
        picks = chosen(panel, margin)
        sums = np.array([panel.values[pick][seed] for seed, pick in enumerate(picks)])
        alone = panel.values[ALONE].mean(axis=0)
        rows = {m: values for m, values in panel.values.items() if is_nmt(m)}
        for method, values in {**rows, **({CHOSEN: sums} if picks else {})}.items():
            d = against[panel.model][method]
            held = d.mean >= -margin and d.high >= 0
            label = tables.label(method)
            compared, place = ["–"] * len(tasks), "–"
            if method == CHOSEN:
                label = f"the sum chosen on validation: {', '.join(pick[4:] for pick in picks)}"
            elif picks:
                compared = [f"{each:+.4f}" for each in (values - sums).mean(axis=0)]
                place = against_line(panel, method) if len(tasks) == 2 else "–"
            lines.append(
                [
                    panel.title.partition(":")[0],
                    label,
                    f"{d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}]",
                    "yes" if held else "**no**",
                    *(
                        _learnt((values.mean(axis=0)[i] - 0.5) / (alone[i] - 0.5))
                        if panel.measures[task] == "auc"
                        else "–"
                        for i, task in enumerate(tasks[1:], 1)
                    ),
                    *compared,
                    place,
                ]
            )
    return tables.markdown(lines) + (
        f"\nHeld: the mean difference is at least −{margin} and its interval (bootstrap over test "
        f"rows or users) does not lie below 0. Learnt: the way from 0.5 to the task's own "
        f"single-task AUC, {LEARNT_SHARE:.0%} asked for. The chosen sum is, in each seed, the one "
        f"with the best mean of the other tasks' validation AUCs among those whose primary "
        f"validation AUC is within {margin} of the best sum's. The sums' line joins their means: "
        f"a method is above it if no point of it is as good in both tasks and a sum is beaten in "
        f"both, beyond it if it trades the tasks in a way that no sum did.\n"
    )


def _learnt(share: float) -> str:
    if np.isnan(share):
        return "–"
    return f"{share:.0%}" if share >= LEARNT_SHARE else f"**{share:.0%}**"


def chosen(panel: Panel, margin: float) -> list[str]:
    """For each seed the weighted sum that validation rows speak for; none where there is no sum.

    Args:
        panel: with validation AUCs in its records.
        margin: the primary validation AUC may be so far below the best sum's; of those the one
            with the best mean over the other tasks.
    """
    found = []
    for seed in sorted({run.seed for run in panel.runs}):
        records = {
            run.method: record
            for run, record in zip(panel.runs, panel.records, strict=True)
            if run.seed == seed
        }
        sums = weighted_sums(records)
        if not sums:
            return []
        scores = np.array(
            [[float(records[m][f"validation_auc_{t}"]) for t in panel.tasks] for m in sums]
        )
        near = scores[:, 0] >= scores[:, 0].max() - margin
        found.append(sums[int(np.argmax(np.where(near, scores[:, 1:].mean(axis=1), -1)))])
    return found


def against_line(panel: Panel, method: str) -> str:
    """Where a method lies against the line through the weighted sums, by the means over seeds.

    ``"below"``: a weighted sum is as good in one task and better in the other, or a point of the
    line better in both. ``"on"``: neither, but a point of the line is as good in both. ``"above"``:
    no point of the line is, and some weighted sum is beaten in both. ``"beyond"`` otherwise: it
    trades the tasks in a way that no weighted sum did.
    """
    means = {name: values.mean(axis=0)[:2] for name, values in panel.values.items()}
    own, curve = means[method], np.array([means[name] for name in weighted_sums(means)])
    steps = np.linspace(0, 1, 1001)[:, None]
    line = np.concatenate([a + steps * (b - a) for a, b in itertools.pairwise(curve)] or [curve])
    beaten = (curve >= own).all(axis=1) & (curve > own + SHOWN).any(axis=1)
    lead = float((line - own).min(axis=1).max())  # of the best point, in its worse task
    if beaten.any() or lead > SHOWN:
        return "below"
    if lead >= -SHOWN:
        return "on"
    return "above" if (curve <= own).all(axis=1).any() else "beyond"


def _against_alone(panels, folder, kept, path) -> dict[str, dict[str, Difference]]:
    """From the runs' predictions; where these are not there, as they were written before for as
    many seeds, if so.
    """
    compared = {panel.model: _compared(panel) for panel in panels}
    runs = [run for methods in compared.values() for each in methods.values() for run in each]
    seeds = str(len({run.seed for run in runs}))
    if not all(_predictions(folder, run).exists() for run in runs):
        found: dict[str, dict[str, Difference]] = {}
        for row in read_csv(kept) if kept.exists() else []:
            if row.get("seeds") == seeds:
                values = Difference(*(float(row[field]) for field in _FIELDS))
                found.setdefault(row["model"], {})[row["method"]] = values
        return found
    settings = runs[0].settings
    test = load(runs[0].data, path, settings.tasks, settings.embedding_width).test
    task = panels[0].tasks[0]
    found = {}
    for model, methods in compared.items():
        scores = {
            name: [_score(folder, run, task) for run in each] for name, each in methods.items()
        }
        found[model] = differences(test.labels[task], scores, f"single:{task}", groups=test.groups)
    write_csv(
        kept,
        [
            {
                "model": model,
                "method": method,
                "seeds": seeds,
                **{f: getattr(each, f) for f in _FIELDS},
            }
            for model, methods in found.items()
            for method, each in methods.items()
        ],
    )
    return found


def _compared(panel: Panel) -> dict[str, list[Run]]:
    """The runs whose primary task is compared with training it alone, in the order of the seeds."""
    picks = chosen(panel, source_of(panel.runs[0].data).held_margin)
    found: dict[str, list[Run]] = {}
    for run in sorted(panel.runs, key=lambda run: run.seed):
        if run.method == f"single:{panel.tasks[0]}" or is_nmt(run.method):
            found.setdefault(run.method, []).append(run)
        if picks and run.method == picks[run.seed]:
            found.setdefault(CHOSEN, []).append(run)
    return found


def _predictions(folder: pathlib.Path, run: Run) -> pathlib.Path:
    return folder / "runs" / run.key / "test.npz"


def _score(folder: pathlib.Path, run: Run, task: str) -> np.ndarray:
    with np.load(_predictions(folder, run)) as found:
        return found[task]
