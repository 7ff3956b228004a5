"""What the benchmark records: functions that running services enter on a journey."""
