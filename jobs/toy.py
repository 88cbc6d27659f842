"""The earlier name of ``jobs/planar.py``."""

import sys

print("error: toy.py is called jobs/planar.py now", file=sys.stderr)
sys.exit(2)
