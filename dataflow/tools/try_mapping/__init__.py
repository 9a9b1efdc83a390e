"""``python -m dataflow try``: what a mapping makes of some messages, and a mapping proposed for them."""
