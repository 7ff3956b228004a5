"""How our edges speak the standards: with people's own tools, on untidied input."""
