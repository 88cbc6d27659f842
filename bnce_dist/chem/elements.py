"""The chemical elements that molecules here may hold."""

COVALENT_RADIUS_NM = {
    "H": 0.031, "B": 0.084, "C": 0.076, "N": 0.071, "O": 0.066, "F": 0.057, "Si": 0.111,
    "P": 0.107, "S": 0.105, "Cl": 0.102, "Se": 0.120, "Br": 0.120, "I": 0.139,
}  # fmt: skip
"""Cordero et al. (2008), Dalton Trans. 2832 [nm]."""
MASS_DALTON = {
    "H": 1.007947, "B": 10.8117, "C": 12.01078, "N": 14.00672, "O": 15.99943, "F": 18.99840325,
    "Si": 28.08553, "P": 30.9737622, "S": 32.0655, "Cl": 35.4532, "Se": 78.963, "Br": 79.9041,
    "I": 126.904473,
}  # fmt: skip
"""The masses that OpenMM gives to atoms [Da]."""
