"""The chemical elements that molecules here may hold."""

COVALENT_RADIUS_NM = {
    "H": 0.031, "B": 0.084, "C": 0.076, "N": 0.071, "O": 0.066, "F": 0.057, "Si": 0.111,
    "P": 0.107, "S": 0.105, "Cl": 0.102, "Se": 0.120, "Br": 0.120, "I": 0.139,
}  # fmt: skip
"""Cordero et al. (2008), Dalton Trans. 2832 [nm]."""
