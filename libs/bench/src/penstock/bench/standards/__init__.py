"""How our edges speak the standards: with the tools that people use, on input that nobody tidied."""
