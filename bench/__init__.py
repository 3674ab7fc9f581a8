"""Measurements: ``python -m bench`` lists them. Not installed; run from a clone."""
