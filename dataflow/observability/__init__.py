"""What the job reports about itself: metrics, progress, liveness, health probes and logs."""
