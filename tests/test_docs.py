"""Every Python block of the README and of the documents runs, in order, in one namespace a file."""

import importlib
import pathlib
import re
import sys

import numpy as np
import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILES = [
    path.relative_to(ROOT)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if BLOCK.search(path.read_text())
]


def rows(n=96):
    """What the documents call `train` and `held_out`: users, items and an age; likes and clicks."""
    rng = np.random.default_rng(0)
    columns = {
        "user": rng.integers(0, 10_000, n).astype("int32"),
        "item": rng.integers(0, 5_000, n).astype("int32"),
        "age": rng.normal(size=n).astype("float32"),
    }
    labels = {task: rng.integers(0, 2, n).astype("float32") for task in ("like", "click")}
    return tf.data.Dataset.from_tensor_slices((columns, labels)).batch(32)


@pytest.fixture
def nothing_patched():
    """MLflow logs each `fit` from the first on."""
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].tensorflow.autolog(disable=True)
        sys.modules["mlflow"].set_tracking_uri(None)


# MLflow and KerasTuner ask SQLAlchemy and `threading` for what these are to drop.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:(currentThread|getName)\\(\\) is deprecated:DeprecationWarning")
@pytest.mark.usefixtures("nothing_patched")
@pytest.mark.parametrize("file", FILES, ids=str)
def test_code_blocks_run(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"train": rows(), "held_out": rows()}
    for block in BLOCK.findall((ROOT / file).read_text()):
        exec(compile(block, str(file), "exec"), namespace)


PUBLIC = ("balancers", "models", "losses", "metrics", "data", "preprocessing", "optimizers")


@pytest.mark.parametrize("module", [*PUBLIC, "ranking", "training"])
def test_the_reference_has_every_public_name(module):
    pages = "\n".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))
    there = set(re.findall(r"^\.\. auto\w+:: (\w+)$", pages, re.MULTILINE))
    public = importlib.import_module(f"tfmtl.{module}").__all__
    assert sorted(set(public) - there - {"KINDS"}) == []


def test_every_page_has_its_place_in_the_site():
    index = "\n".join((ROOT / "docs" / name).read_text() for name in ("index.md", "api/index.md"))
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    names = {path.stem if path.parts[0] == "api" else str(path)[:-3] for path in pages}
    listed = set(re.findall(r"^([\w/-]+)$", index, re.MULTILINE))
    assert sorted(names - listed - {"index"}) == []
