"""``python -m bnce_dist`` is ``bnce``."""

from bnce_dist.cli.main import app

app(prog_name="bnce")
