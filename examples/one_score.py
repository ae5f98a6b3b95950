"""Several objectives pull on one score: NMT's Table 3 on public rows, with pairwise losses.

A network gives each item one score. The first objective alone, another beside it by weights and by
NMT, and all three by NMT; differences to the first objective alone are paired by query and seed.

    python examples/one_score.py --data mslr --path FOLDER
    python examples/one_score.py --data kuairand --path FOLDER

MSLR: relevance > clicks > dwell time, lists by query. KuaiRand: like > click > long view, lists by
user. Writes `one-score-DATA.csv` (each query of each run), `one-score-DATA.md` (the table) and
`one-score-DATA.png` (the differences in the order of pairs).
"""

import argparse
import csv
import pathlib

import keras
import numpy as np
from matplotlib.figure import Figure
from rich.progress import track

import tfmtl
from tfmtl import balancers, callbacks, data, losses, models
from tfmtl.plots import COLOURS

SETTINGS = {
    # Of 35 queries one pass is five steps: an epoch is several.
    "mslr": {"epochs": 12, "passes": 5, "batch_size": 8, "list_size": 120, "units": (64, 32)},
    "kuairand": {"epochs": 3, "passes": 1, "batch_size": 128, "list_size": 20, "units": (64, 32)},
}


def load(name, path):
    """Splits with tasks in priority order."""
    if name == "mslr":
        labels = {"relevance": "label", "click": 134, "dwell": 136}
        files = {
            part: next(pathlib.Path(path).glob(f"*{part}*.txt*")) for part in ("train", "test")
        }
        return data.letor(files, labels=labels, exclude=[135])
    return data.kuairand(path, tasks=("like", "click", "long_view"))


def methods(tasks):
    """The rows of the table: tasks, balancer, and what training stops on."""
    first, second, third = tasks
    found = {f"{first} alone": ((first,), balancers.NMT([first]), None)}
    for weight in (0.9, 0.7, 0.5):
        weights = {first: weight, second: round(1 - weight, 1)}
        stop = callbacks.BestReading(weights)
        found[f"{first} + {second}, weights {weight} : {weights[second]}"] = (
            (first, second),
            balancers.FixedWeights(weights),
            stop,
        )
    found[f"{first} + {second}, NMT"] = ((first, second), balancers.NMT([first, second]), None)
    found[f"{first} + {third}, NMT"] = ((first, third), balancers.NMT([first, third]), None)
    found[f"{first} + {second} + {third}, NMT"] = (tasks, balancers.NMT(list(tasks)), None)
    return found


def only(rows, tasks):
    """The same rows with the labels of some tasks."""
    return data.Rows(rows.columns, {task: rows.labels[task] for task in tasks}, rows.groups)


def train(splits, tasks, balancer, stop, settings, seed):
    """Scores of the test rows."""
    keras.utils.set_random_seed(seed)
    net = models.LTRTower(splits.features, units=settings["units"], layout="lists", seed=100 * seed)
    model = tfmtl.MultiTaskModel(net, outputs=dict.fromkeys(tasks, "score"), layout="lists")
    model.compile(
        keras.optimizers.Adam(1e-3),
        loss={task: losses.PairwiseLogistic() for task in tasks},
        balancer=balancer,
    )
    size, many = settings["batch_size"], settings["list_size"]
    model.fit(
        only(splits.train, tasks)
        .lists(size, many, shuffle=True, seed=seed)
        .repeat(settings["passes"]),
        validation_data=only(splits.validation, tasks).lists(2 * size, many),
        epochs=settings["epochs"],
        verbose=0,
        callbacks=[stop] if stop else [],
    )
    scores = model.net.predict(
        {name: column[:, None] for name, column in splits.test.columns.items()},
        batch_size=4096,
        verbose=0,
    )
    return scores["score"].ravel()


def by_query(rows, scores, tasks):
    """For each query a dict of figures; NaN where a query does not have it."""
    order = np.argsort(rows.groups, kind="stable")
    edges = np.flatnonzero(np.diff(rows.groups[order])) + 1
    for of_query in np.split(order, edges):
        found = {"query": rows.groups[of_query[0]]}
        for task in tasks:
            labels = rows.labels[task][of_query]
            found[f"pairs_{task}"] = pair_accuracy(labels, scores[of_query])
        first = rows.labels[tasks[0]][of_query]
        found[f"ndcg_{tasks[0]}"] = ndcg(first, scores[of_query])
        yield found


def pair_accuracy(labels, scores):
    """The share of a query's pairs that are in order, ties half."""
    above = labels[:, None] > labels[None, :]
    if not above.any():
        return np.nan
    right = scores[:, None] > scores[None, :]
    tied = scores[:, None] == scores[None, :]
    return float((above * (right + 0.5 * tied)).sum() / above.sum())


def ndcg(labels, scores, k=10):
    """NDCG@10 with exponential gains."""
    gains, discounts = 2.0**labels - 1, 1 / np.log2(np.arange(2, len(labels) + 2))
    discounts[k:] = 0
    best = np.sort(gains)[::-1] @ discounts
    return float(gains[np.argsort(-scores, kind="stable")] @ discounts / best) if best else np.nan


def difference(mine, its, draws=2000):
    """Mean difference over queries of the means over seeds, low and high of its 95 % interval."""
    both = mine - its
    per_query = both[:, np.isfinite(both).all(axis=0)].mean(axis=0)
    chosen = np.random.default_rng(0).integers(0, len(per_query), (draws, len(per_query)))
    low, high = np.quantile(per_query[chosen].mean(axis=1), [0.025, 0.975])
    return per_query.mean(), low, high


def table(found, figures):
    """Markdown from `{method: {figure: [seeds, queries]}}`."""
    base = next(iter(found.values()))
    lines = ["| method | " + " | ".join(figures) + " |", "| --- |" + " --- |" * len(figures)]
    for method, values in found.items():
        cells = []
        for figure in figures:
            seeds = np.nanmean(values[figure], axis=1)
            cell = f"{seeds.mean():.4f} ± {seeds.std(ddof=min(1, len(seeds) - 1)):.4f}"
            if values is not base:
                mean, low, high = difference(values[figure], base[figure])
                cell += f"<br>{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
            cells.append(cell)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(found, tasks, path):
    """What each row changes in the order of pairs: the first objective against each other one."""
    (_, base), *others = found.items()
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots(1, len(tasks) - 1, sharey=True)
    for panel, other in zip(axes, tasks[1:], strict=True):
        for i, (method, values) in enumerate(others):
            y, x = (difference(values[f"pairs_{t}"], base[f"pairs_{t}"]) for t in (tasks[0], other))
            panel.errorbar(
                x[0],
                y[0],
                xerr=[[x[0] - x[1]], [x[2] - x[0]]],
                yerr=[[y[0] - y[1]], [y[2] - y[0]]],
                fmt="*" if "NMT" in method else "o",
                markersize=13 if "NMT" in method else 6,
                color=COLOURS[i % len(COLOURS)],
                label=method if panel is axes[0] else None,
            )
        panel.axhline(0, color="grey", linewidth=1, linestyle="--")
        panel.axvline(0, color="grey", linewidth=1, linestyle="--")
        panel.set_xlabel(f"{other}: pairs in order, difference")
    axes[0].set_ylabel(f"{tasks[0]}: pairs in order, difference")
    figure.legend(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)


def main(name, path, seeds, epochs, only_those, folder):
    settings = {**SETTINGS[name], **({"epochs": epochs} if epochs else {})}
    splits = load(name, path)
    tasks = splits.tasks
    chosen = [m for i, m in enumerate(methods(tasks)) if i == 0 or only_those in m]
    plan = [(method, seed) for seed in range(seeds) for method in chosen]
    records = []
    for method, seed in track(plan, "runs"):
        trained, balancer, stop = methods(tasks)[method]
        scores = train(splits, trained, balancer, stop, settings, seed)
        records += [
            {"method": method, "seed": seed, **figures}
            for figures in by_query(splits.test, scores, tasks)
        ]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"one-score-{name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    figures = [f"ndcg_{tasks[0]}", *(f"pairs_{task}" for task in tasks)]
    found = {
        method: {
            figure: np.array(
                [
                    [r[figure] for r in records if r["method"] == method and r["seed"] == seed]
                    for seed in range(seeds)
                ]
            )
            for figure in figures
        }
        for method in chosen
    }
    text = table(found, figures)
    (folder / f"one-score-{name}.md").write_text(text)
    draw(found, tasks, folder / f"one-score-{name}.png")
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=sorted(SETTINGS), required=True)
    parser.add_argument("--path", required=True, help="the folder of the data set's files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="at most so many a stage")
    parser.add_argument("--only", default="", help="rows whose name holds this, and the first one")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs"))
    chosen = parser.parse_args()
    main(chosen.data, chosen.path, chosen.seeds, chosen.epochs, chosen.only, chosen.out)
