"""The command `penstock`: start Penstock, call it, and see what it does, from a terminal."""

import os

# gRPC reads it once, when it is imported; its warnings would stand between the lines of an answer.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
