"""Is there an answer that may be reused? Asks the cache. Imports requests and stages."""
