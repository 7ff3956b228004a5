"""What holds for each kind of task: estimated sizes, keys of answers that may be reused."""
