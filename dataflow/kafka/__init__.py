"""The Kafka ends of the job: partitions that can be resumed in, rows that are acknowledged out."""
