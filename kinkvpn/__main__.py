"""``python -m kinkvpn``."""

import sys

from kinkvpn.cli import main

if __name__ == "__main__":
    sys.exit(main())
