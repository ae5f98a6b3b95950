"""What a release is tried by: built, installed without extras where nothing else is, and used.

    python -m tests.release                              # each stack, with this Python
    python -m tests.release --python python3.10 --stack tf215

Builds `dist/` anew. For each stack and for each of wheel and sdist an environment is made in a
temporary folder with the stack's TensorFlow and Keras; README's example runs there.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap

from rich.console import Console

ROOT = pathlib.Path(__file__).parents[1]
STACKS = ("tf221", "tf215")
LARGEST = 500_000
#: README's example, between what it takes for granted and what it must not have done.
BEFORE = """
import sys
import numpy as np, tensorflow as tf, keras
before = set(sys.modules)
import tfmtl
loaded = set(sys.modules) - before
draw = np.random.default_rng(0)
columns = {
    "user": draw.integers(0, 10_000, 96).astype("int32"),
    "item": draw.integers(0, 5_000, 96).astype("int32"),
    "age": draw.normal(size=96).astype("float32"),
}
labels = {task: draw.integers(0, 2, 96).astype("float32") for task in ("like", "click")}
train = held_out = tf.data.Dataset.from_tensor_slices((columns, labels)).batch(32)
"""
AFTER = """
assert not loaded & {"tensorflow_ranking", "pandas", "matplotlib"}, loaded
assert "site-packages" in tfmtl.__file__, tfmtl.__file__
assert tf.saved_model.load("serving/1").signatures
"""


def pinned(stack: str) -> list[str]:
    """The stack's TensorFlow and Keras, as its lock has them."""
    lock = (ROOT / "requirements" / f"{stack}.txt").read_text()
    return re.findall(r"^(?:tensorflow|keras)==.*$", lock, re.MULTILINE)


def example() -> str:
    """The block of README's section 'On your own data'."""
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## On your own data") :]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


def tried(python: str, stack: str, package: pathlib.Path, say) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        subprocess.run([python, "-m", "venv", home / "env"], check=True)
        inside = home / "env/bin/python"
        pip = [inside, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *pinned(stack), package], check=True)
        (home / "empty").mkdir()
        (home / "try.py").write_text(textwrap.dedent(BEFORE) + example() + textwrap.dedent(AFTER))
        for command in ([inside, home / "try.py"], [home / "env/bin/tfmtl", "balancers"]):
            done = subprocess.run(command, cwd=home / "empty", capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{package.name} with {stack} does not run:\n{done.stderr[-3000:]}")
    say(f"{package.name}, {python}, {' '.join(pinned(stack))}: README's example runs")


def main(pythons: list[str], stacks: list[str]) -> None:
    console = Console(highlight=False)
    with console.status("building"):
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."]
        subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    packages = sorted((ROOT / "dist").iterdir(), reverse=True)
    for package in packages:
        size = package.stat().st_size
        console.print(f"{package.name}: {size / 1000:.0f} kB")
        if size > LARGEST:
            sys.exit(f"{package.name} must be at most {LARGEST / 1000:.0f} kB")
    for python in pythons:
        for stack in stacks:
            for package in packages:
                with console.status(f"{package.name}, {python}, {stack}"):
                    tried(python, stack, package, console.print)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters")
    parser.add_argument("--stack", nargs="+", default=STACKS, choices=STACKS)
    asked = parser.parse_args()
    main(asked.python, asked.stack)
