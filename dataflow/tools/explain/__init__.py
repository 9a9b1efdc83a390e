"""Why did this come out like that? ``python -m dataflow explain``, by the very code of the rules."""
