"""Agent runs."""
