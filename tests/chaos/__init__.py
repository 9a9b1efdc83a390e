"""Random faults under load on a real Kafka: nothing is lost, nothing is there twice. `python -m chaos --help` runs it."""
