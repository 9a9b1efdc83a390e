"""The job as a process: settings, recovery store, cluster, start and stop."""
