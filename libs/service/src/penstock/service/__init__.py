"""What every service stands on: settings, start and exit, clock, store client.

Imports nothing of ours.
"""
