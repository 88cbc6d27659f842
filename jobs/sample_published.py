"""The earlier name of ``jobs/sample_pretrained.py``."""

import sys

print("error: sample_published.py is called jobs/sample_pretrained.py now", file=sys.stderr)
sys.exit(2)
