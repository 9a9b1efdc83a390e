"""What this job is about: events, purchases, the rules, the outputs, and the chain of steps."""
