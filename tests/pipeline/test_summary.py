"""Lines for people that are made of ``metrics.json``."""

from bnce_dist.pipeline.results import temperature_text

ROW = {
    "temperature_kelvin": 350.0,
    "delta_f_kT": 3.1,
    "delta_f_stderr_kT": 0.05,
    "delta_f_interval_kT": [2.98, 3.84],
    "delta_u_kj_mol": 9.0,
    "delta_u_stderr_kj_mol": 0.4,
    "delta_s_j_mol_kelvin": 2.0,
    "delta_s_stderr_j_mol_kelvin": 1.0,
    "ess_fraction": 0.4,
    "reliable": True,
}


def test_a_temperature_has_the_interval_that_its_verdict_is_of() -> None:
    text = temperature_text(ROW)
    assert text.startswith("3.10 +- 0.05 kT, 95 % interval [2.98, 3.84], energy 9.0 +- 0.4 kJ/mol")
    assert "UNRELIABLE" not in text
    assert temperature_text(ROW | {"reliable": False}).endswith(", UNRELIABLE")


def test_a_temperature_out_of_reach_has_none() -> None:
    assert temperature_text(ROW | {"delta_f_kT": None}).startswith("out of reach")
