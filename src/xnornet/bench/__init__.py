"""Measuring: timing, machine fingerprint, baselines, sweeps, roofline."""
