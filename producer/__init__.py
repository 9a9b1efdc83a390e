"""Rows for the two input topics: a simulated shop, or a recorded file. Run it with ``python -m producer``."""
