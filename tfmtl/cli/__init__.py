"""The command ``tfmtl``."""

from __future__ import annotations

import os

import click

from tfmtl.cli.catalogue import balancers, data
from tfmtl.cli.common import DATA
from tfmtl.cli.compare import compare, demo
from tfmtl.cli.profile import profile
from tfmtl.cli.train import export, predict, train

__all__ = ["DATA", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Multi-task ranking with TensorFlow and Keras."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


for command in (demo, train, compare, export, predict, data, balancers, profile):
    main.add_command(command)
