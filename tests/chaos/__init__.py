"""Random faults under load on a real Kafka: nothing is lost, nothing is there twice. See `python -m chaos --help`."""
