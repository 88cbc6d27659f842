"""Learned likelihoods for Boltzmann generators, trained and run at scale."""

__version__ = "0.1.0"
