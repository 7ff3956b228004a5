"""How many of the calls that the documentation shows fail when a reader types them."""
