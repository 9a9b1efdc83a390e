"""What the tests share: records, brokers, programs, and how they run the job."""
