"""The live page: what the job is doing at this moment, for people."""
