"""Questions to the store, and its values turned into messages."""
