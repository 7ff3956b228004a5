"""Which instances exist and how they are reached. Imports routing for what is learnt of them."""
