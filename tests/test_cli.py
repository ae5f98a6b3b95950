"""The command line as such: what it imports, completes, and ends with."""

import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from tfmtl import balancers, names, training
from tfmtl.cli import common, main
from tfmtl.training import recipe


def test_names_to_complete_are_those_there_are():
    assert set(common.BALANCERS) == set(names.BALANCED) <= set(balancers.BALANCERS)
    assert set(common.STAGED) == {name for name in names.NAMED if names.is_nmt(name)}
    assert set(common.MODELS) == set(recipe.MODELS)
    assert set(common.MODELS[:-1]) == set(names.MODELS)


@pytest.mark.parametrize(
    ("words", "begun", "expected"),
    [
        ([], "pr", ["predict", "profile"]),
        (["train", "--balancer"], "p", ["PCGrad", "PUB"]),
        (["train", "--model"], "m", ["mmoe"]),
        (["compare", "--methods"], "nmt,sum:0.5,pu", ["nmt,sum:0.5,PUB"]),
        (["compare", "--models"], "mmoe,l", []),  # lists are not compared
        (["profile", "--balancer"], "fam", ["FAMO"]),
        (["data"], "ku", ["kuairand"]),
        (["completion"], "", ["bash", "zsh", "fish"]),
    ],
)
def test_words_are_completed(words, begun, expected):
    complete = ShellComplete(main, {}, "tfmtl", "_TFMTL_COMPLETE")
    assert [each.value for each in complete.get_completions(words, begun)] == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell):
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"_TFMTL_COMPLETE={shell}_complete" in result.output


def test_help_does_not_wait_for_tensorflow():
    script = """
import sys
sys.argv = ["tfmtl", "train", "--help"]
sys.modules.update(dict.fromkeys(["tensorflow", "keras", "numpy"]))  # they do not import
from tfmtl.cli import main
main()
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("Usage: ")


def test_in_the_command_the_package_has_what_it_has_elsewhere():
    script = """
import sys
sys.argv[0] = "/somewhere/bin/tfmtl"
import tfmtl
assert "tensorflow" not in sys.modules
assert all(getattr(tfmtl, name) for name in tfmtl.__all__)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("no such row"), 2, "Invalid value for ROWS: no such row"),
        (ImportError("no parquet"), 1, "Error: no parquet"),
        (FloatingPointError("not finite"), 1, "Error: not finite"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
)
def test_what_a_command_ends_with(tmp_path, monkeypatch, error, code, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(training, "scores", fail)
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "rows.csv").touch()
    result = CliRunner().invoke(main, ["predict", str(tmp_path), str(tmp_path / "rows.csv")])
    assert result.exit_code == code
    assert said in result.output


def test_what_is_asked_wrongly_ends_with_2():
    for arguments in (["trian"], ["train", "--model", "mlp"], ["train"], ["data", "nowhere"]):
        assert CliRunner().invoke(main, arguments).exit_code == 2
