"""``python -m dataflow explain``: why a session or row came out as it did, by the job's own rules."""
