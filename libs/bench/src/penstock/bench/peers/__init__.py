"""Programs that run in the peers' environment (`make peers`). They import nothing of Penstock."""
