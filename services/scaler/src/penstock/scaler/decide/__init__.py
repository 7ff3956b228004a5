"""How many instances a forecast asks for, and why. Plain values in and out."""
