"""The earlier name of ``jobs/evaluate_pretrained.py``."""

import sys

print("error: evaluate_published.py is called jobs/evaluate_pretrained.py now", file=sys.stderr)
sys.exit(2)
