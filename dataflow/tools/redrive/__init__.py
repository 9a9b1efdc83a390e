"""``python -m dataflow redrive``: puts dead letters and late events back into the partitions that they came from."""
