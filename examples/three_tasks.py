"""Three tasks in priority order: what NMT holds, reading by reading.

    python examples/three_tasks.py                 # census-income: income, college, never married
    python examples/three_tasks.py --path FOLDER   # KuaiRand: like, long view, click

Prints for each stage how many of its readings satisfied the constraints, multipliers and excess
over the baselines (of 1 - AUC) at its end, what is held, and the AUCs on the test rows. A stage
without a feasible reading keeps the one that violates least: more epochs, or a larger tolerance.
"""

import argparse

import keras

import tfmtl
from tfmtl import balancers, data, models


def main(path, epochs):
    if path:
        splits = data.kuairand(path, tasks=("like", "long_view", "click"))
    else:
        splits = data.census_income(tasks=("income", "college", "never_married"))
    keras.utils.set_random_seed(1)
    model = tfmtl.MultiTaskModel(models.MMoE(splits.tasks, splits.features, seed=1))
    model.compile(
        optimizer=keras.optimizers.Adam(2e-3),
        loss=dict.fromkeys(splits.tasks, "binary_crossentropy"),
        metrics={t: [keras.metrics.AUC(2000, name="auc")] for t in splits.tasks},
        balancer=balancers.NMT(
            priority=splits.tasks,  # the most important first
            tolerance=0.003,  # what each may give way, in loss
        ),
    )
    model.fit(
        splits.train.batches(1024, shuffle=True, seed=1),
        validation_data=splits.validation.batches(4096),  # where the earlier tasks are held
        epochs=epochs,  # shared out over the stages
        verbose=0,
    )

    trace = model.balancer.trace()  # a row for each reading of the held-out rows
    for stage in sorted({row["stage"] for row in trace}):
        readings = [row for row in trace if row["stage"] == stage]
        feasible = sum(row["feasible"] for row in readings)
        print(f"stage {stage}, {splits.tasks[stage - 1]}: {feasible} of {len(readings)} feasible")
        for task in splits.tasks[: stage - 1]:
            multiplier, excess = (
                readings[-1][f"{name}_{task}"] for name in ("lambda", "violation")
            )
            print(f"  at the last, {task}: λ {multiplier:.2f}, {excess:+.1%} of its baseline")
    for task, level in model.balancer.baselines().items():
        print(f"{task}: held-out AUC around the best reading of its stage {level['auc']:.4f}")
    found = model.evaluate(splits.test.batches(4096), return_dict=True, verbose=0)
    print("test:", ", ".join(f"{task} AUC {found[f'{task}_auc']:.4f}" for task in splits.tasks))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", help="the folder of KuaiRand's files")
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    main(options.path, options.epochs)
