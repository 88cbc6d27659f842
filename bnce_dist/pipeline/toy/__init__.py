"""Two-dimensional systems whose densities are known: objectives judged in a minute."""
