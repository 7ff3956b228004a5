"""The command `penstock`: traces and a live overview of a running Penstock, in the terminal."""
