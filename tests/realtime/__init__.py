"""What real time does to the job: outages, pauses, backlogs."""
