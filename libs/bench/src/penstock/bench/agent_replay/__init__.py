"""A replay of agents' recorded traffic through the whole stack, and directly to the provider.

`traffic` is what is asked, `provider` the scripted provider, `players` are the arms and processes
that play it, and `findings` say what came of it.
"""
