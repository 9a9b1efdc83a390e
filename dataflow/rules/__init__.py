"""What the job means: event time, the join, sessions. Plain Python, with no Bytewax, no Kafka and no wall clock."""
