"""What calls cost and saved, from the increments that services send. Imports spans and window."""
