"""A replay of agents' recorded traffic through the whole stack, and directly to the provider.

`recordings`, `heads`, `closed_answers` and `arrivals` make the workloads, `upstream` and `load` are
the processes that play them, `arms` says who stands between, and `audit` and `figures` say what
came of it.
"""
