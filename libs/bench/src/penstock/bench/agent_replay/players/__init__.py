"""Who plays what: arms, the running stack, the load generator, workloads. Imports `provider` and
`traffic`.
"""
