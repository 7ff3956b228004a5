"""Is there an answer that may be reused?

Asks three places in turn: answers of the last second in this process, identical requests in flight
here, the cache service. Imports requests and stages.
"""
