"""The matrix of `overhead`: ways of a call, payloads, callers, profiles and shapes."""
