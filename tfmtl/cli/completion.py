"""``tfmtl completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell):
    """Print what lets a shell complete commands, options and names.

    For bash put the line `eval "$(tfmtl completion bash)"` into ~/.bashrc, for zsh the same with
    zsh into ~/.zshrc. For fish write the output to ~/.config/fish/completions/tfmtl.fish.
    """
    command = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(command, {}, "tfmtl", "_TFMTL_COMPLETE").source())
