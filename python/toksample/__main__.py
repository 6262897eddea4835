"""Runs the command line as ``python -m toksample``."""

import sys

from toksample.cli import main

if __name__ == "__main__":
    sys.exit(main())
