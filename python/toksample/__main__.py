"""``python -m toksample``: the command line."""

import sys

from toksample.cli import main

if __name__ == "__main__":
    sys.exit(main())
