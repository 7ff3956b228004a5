"""Who calls, and what it may do: API keys of the file and of the store, and signed tokens (JWT).

Every credential is turned into a `Grant`. What a grant permits is decided by pure functions; where
grants come from (`key_store`, `jwt_tokens`) is apart from that. Imports no other subject of the
router.
"""
