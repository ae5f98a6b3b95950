"""The package as a whole: links, names, docstrings, registrations, the wheel."""

import importlib
import inspect
import pathlib
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

import tfmtl

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "tfmtl"
MODULES = [
    each.name
    for each in pkgutil.walk_packages(tfmtl.__path__, "tfmtl.")
    if each.name != "tfmtl.__main__"
]


@pytest.mark.parametrize("name", ["models", "losses"])
def test_the_links_at_the_top_lead_into_the_package(name):
    link = ROOT / name
    assert link.is_symlink()
    assert link.resolve() == PACKAGE / name
    assert not pathlib.Path(link.readlink()).is_absolute()


@pytest.mark.parametrize("name", ["tfmtl", *MODULES])
def test_what_is_public_has_a_docstring(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for public, thing in vars(module).items():
        own = getattr(thing, "__module__", None) == name and not public.startswith("_")
        if own and (inspect.isclass(thing) or inspect.isfunction(thing)):
            assert thing.__doc__, f"{name}.{public}"


def test_exported_names_are_there():
    for name in ["tfmtl", *MODULES]:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", []):
            assert hasattr(module, public), f"{name}.{public}"


def test_one_module_alone_asks_for_versions():
    # To write a version down, as `"keras": keras.__version__`, is not to ask for it.
    asks = re.compile(r"KERAS_3|\b(?<!\": )(keras|tf|np)\.(__version__|version\b)|version_utils")
    found = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if asks.search(path.read_text())
    ]
    assert found == ["compat.py"]


@pytest.mark.slow
def test_the_wheel_installs_the_package_and_nothing_else(tmp_path):
    # A copy, because a build leaves folders beside what it builds.
    source = tmp_path / "source"
    shutil.copytree(PACKAGE, source / "tfmtl", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("models", "losses"):
        (source / name).symlink_to((ROOT / name).readlink())
    options = ["--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run(
        [sys.executable, "-m", "build", *options, str(source)], check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"tfmtl", f"tfmtl-{tfmtl.__version__}.dist-info"}
    modules = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    assert modules <= set(names)
    assert "tfmtl/py.typed" in names


IMPORTING = """
import sys
import tensorflow, keras
keras.Model  # it imports what it needs when it is first used
others = ("tensorflow_ranking", "pandas", "matplotlib", "pyarrow", "yaml", "scipy", "rich", "click")
# Keras 3 imports some of them where they are installed. Nobody can from here on.
for name in {*others, *sys.modules}:
    if name.partition(".")[0] in others:
        sys.modules[name] = None
before = set(sys.modules)
import tfmtl
print(*sorted(name for name in set(sys.modules) - before if name.startswith("tfmtl.")))
import tfmtl.data
import tfmtl.plots
assert tfmtl.profile.__module__ == "tfmtl.profiling.run"
"""


def test_importing_the_package_imports_no_more_than_training_needs():
    found = subprocess.run(
        [sys.executable, "-c", IMPORTING], check=True, capture_output=True, text=True
    )
    imported = found.stdout.split()
    assert "tfmtl.model" in imported
    later = ("data", "plots", "profiling", "experiments", "training", "cli", "config")
    assert not [name for name in imported if name.split(".")[1] in later]


def test_what_is_imported_later_is_an_attribute_all_the_same():
    assert set(tfmtl.__all__) <= set(dir(tfmtl))
    assert tfmtl.data.Rows and tfmtl.plots.history and tfmtl.profile
    with pytest.raises(AttributeError, match="module 'tfmtl' has no attribute 'datas'"):
        _ = tfmtl.datas
