"""Event time, watermarks, the interval join and session windows: knows no clicks, no Kafka and no metrics."""
