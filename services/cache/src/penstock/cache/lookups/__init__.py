"""What the RPCs do: look-ups in their steps, storing answers, corrections by callers.

Imports `semantic`, `storage` and `statistics`.
"""
