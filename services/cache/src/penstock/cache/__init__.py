"""Is there an answer that may be reused?"""
