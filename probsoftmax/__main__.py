"""``python -m probsoftmax``: the command line."""

import sys

from probsoftmax.cli import main

if __name__ == "__main__":
    sys.exit(main())
