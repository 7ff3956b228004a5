"""An inference instance whose models are hosted elsewhere, behind an OpenAI-compatible server."""
