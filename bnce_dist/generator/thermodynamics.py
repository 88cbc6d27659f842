"""The free energy of a state at other temperatures, with its energy and its entropy."""

from typing import Any

import numpy as np

from bnce_dist.chem.potentials.force_field import BOLTZMANN_KJ_MOL_KELVIN
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import seed_from
from bnce_dist.core.weights import Weights
from bnce_dist.generator.metrics import EvaluateConfig, evaluation_metrics
from bnce_dist.generator.samples import FloatArray, Samples
from bnce_dist.generator.verdict import Verdict, judge, nothing_left

MIN_EFFECTIVE_SAMPLES_PER_SIDE = 10
"""With fewer there is no number: the temperature is out of the model's reach."""
_MEASURED = (
    "delta_f_kT",
    "delta_f_stderr_kT",
    "delta_f_interval_kT",
    "delta_f_kj_mol",
    "delta_f_stderr_kj_mol",
    "delta_u_kj_mol",
    "delta_u_stderr_kj_mol",
    "delta_s_j_mol_kelvin",
    "delta_s_stderr_j_mol_kelvin",
)


def thermodynamics(
    samples: Samples,
    temperature_kelvin: float,
    config: EvaluateConfig,
    seed: int,
    *,
    min_effective: float = MIN_EFFECTIVE_SAMPLES_PER_SIDE,
) -> dict[str, Any]:
    r"""Return ``delta_f`` at a temperature, and what of it is energy and what entropy.

    .. math:: \Delta F = \Delta U - T \Delta S, \qquad
              \Delta U = \langle U \rangle_{in} - \langle U \rangle_{out}

    Without a volume the energy is the enthalpy. Implicit water counts as energy whatever it is:
    its model does not depend on the temperature.

    Args:
        samples: Weighted to the Boltzmann distribution of that temperature.
        temperature_kelvin: The temperature [K].
        config: Bootstrap.
        seed: Of the run; decides the bootstrap.
        min_effective: Effective samples that each side needs for a number.

    Returns: Plain JSON: the temperature, ``ess_fraction``, ``reliable`` and ``verdict``, and the
        free energy, the energy and the entropy with their standard errors; None for each of these
        where a side has fewer effective samples.
    Raises: InputError: as `evaluation_metrics`, where a number was asked for whatever it is worth.
    """
    none = {"temperature_kelvin": temperature_kelvin, "ess_fraction": 0.0, "reliable": False}
    if not samples.has_weight:
        verdict = nothing_left(len(samples.valid))
        return {**none, "verdict": verdict.as_record()} | dict.fromkeys(_MEASURED)
    try:
        metrics = evaluation_metrics(samples, config, seed)
    except InputError as error:  # one side has too little
        if not min_effective:
            raise
        verdict = Verdict(False, (str(error),), ())
        return {**none, "verdict": verdict.as_record()} | dict.fromkeys(_MEASURED)
    verdict = judge(metrics)
    row = {
        "temperature_kelvin": temperature_kelvin,
        "ess_fraction": metrics["ess_fraction"],
        "reliable": verdict.reliable,
        "verdict": verdict.as_record(),
    }
    effective = min(metrics["ess_in_state"], metrics["ess_outside_state"])
    if effective < min_effective:
        return row | dict.fromkeys(_MEASURED)
    kt_kj_mol = BOLTZMANN_KJ_MOL_KELVIN * temperature_kelvin
    energies, entropies = _energy_and_entropy(samples, kt_kj_mol, config.num_bootstrap, seed)
    values = (
        *(metrics[name] for name in _MEASURED[:3]),
        metrics["delta_f_kT"] * kt_kj_mol,
        metrics["delta_f_stderr_kT"] * kt_kj_mol,
        energies[0],
        float(energies.std(ddof=1)),
        entropies[0] * 1000 / temperature_kelvin,
        float(entropies.std(ddof=1)) * 1000 / temperature_kelvin,
    )
    return row | dict(zip(_MEASURED, values, strict=True))


def _energy_and_entropy(
    samples: Samples, kt_kj_mol: float, num_bootstrap: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    r"""Return :math:`\Delta U` and :math:`T \Delta S` [kJ/mol], first of all samples as they are.

    The others, ``(1 + num_bootstrap,)`` in all, are Bayesian bootstrap replicates.
    """
    weights = Weights(samples.log_weights).normalised
    energies = np.where(weights > 0, samples.reduced_potential, 0.0) * kt_kj_mol
    rng = np.random.default_rng(seed_from(seed, "energy and entropy"))
    masses = np.ones((1 + num_bootstrap, len(weights)))
    masses[1:] = rng.standard_exponential((num_bootstrap, len(weights)))
    inside, outside = (np.where(side, weights, 0) for side in (samples.in_state, ~samples.in_state))
    weight_in, weight_out = masses @ inside, masses @ outside
    delta_u = masses @ (inside * energies) / weight_in - masses @ (outside * energies) / weight_out
    delta_f = kt_kj_mol * (np.log(weight_out) - np.log(weight_in))
    return delta_u, delta_u - delta_f
