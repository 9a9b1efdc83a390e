"""Puts dead letters and late events back to where they came from: ``python -m dataflow redrive``."""
