"""The command ``tfmtl``."""

from __future__ import annotations

import warnings

import click

from tfmtl.cli.catalogue import balancers, data
from tfmtl.cli.common import DATA
from tfmtl.cli.compare import compare, demo
from tfmtl.cli.completion import completion
from tfmtl.cli.profile import profile
from tfmtl.cli.train import export, predict, train

__all__ = ["DATA", "main"]

#: What a shell makes of a program that SIGINT has ended.
INTERRUPTED = 130


class _Commands(click.Group):
    """Ends with 2 for what was asked wrongly, 1 for what failed, and 130 for Ctrl-C."""

    def invoke(self, context):
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            context.exit(INTERRUPTED)
        except BrokenPipeError:
            raise  # click is silent about it
        except (FloatingPointError, OSError) as error:
            raise click.ClickException(str(error)) from error


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="tfmtl", message="%(package)s %(version)s")
def main() -> None:
    """Multi-task ranking with TensorFlow and Keras."""
    warnings.showwarning = _say_warning


def _say_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """A warning as a user of a command reads it, without the place in our source."""
    click.echo(f"Warning: {message}", err=True)


for command in (demo, train, compare, export, predict, data, balancers, profile, completion):
    main.add_command(command)
