"""All of Penstock on one machine: the supervisor, `up` and `demo`."""

import os

# Children are started by exec, never by fork alone. gRPC's fork handlers would only print that they
# were skipped.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
