"""`python -m explorer` is `persona-explorer`, for environments whose scripts are not on the path."""

import sys

from explorer.cli import main

if __name__ == "__main__":
    sys.exit(main())
