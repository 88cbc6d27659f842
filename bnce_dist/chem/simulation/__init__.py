"""Molecular dynamics, umbrella sampling and what is estimated from them."""
