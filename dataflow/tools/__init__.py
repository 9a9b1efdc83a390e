"""The commands beside the job: demo, verify, explain and redrive."""
