"""Programs for the peers' environment (`make peers`). They import nothing of Penstock."""
