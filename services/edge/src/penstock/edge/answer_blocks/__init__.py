"""An answer as a sequence of blocks that never interleave, whatever order its chunks came in."""
