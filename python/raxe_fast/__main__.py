"""``python -m raxe_fast``: the command line."""

import sys

from raxe_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
