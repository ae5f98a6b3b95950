"""``python -m tfmtl``."""

from tfmtl.cli import main

main()
