"""python -m barlow_edu ..."""

import sys

from barlow_edu.cli import main

if __name__ == "__main__":
    sys.exit(main())
