"""Commands beside the job: demo, verify, explain, redrive."""
