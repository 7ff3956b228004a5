"""The model factory: imports, quantises, judges and publishes models. Only here is torch used."""
