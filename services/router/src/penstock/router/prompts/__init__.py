"""Which prompts may be shaped, and how. Imports stages."""
