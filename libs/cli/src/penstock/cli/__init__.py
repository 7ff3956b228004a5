"""The command `penstock`: start Penstock, call it, and see what it does, from a terminal."""
