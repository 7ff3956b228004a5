"""Who starts and stops instances: child processes, Kubernetes, AWS, or nobody.

Decides nothing; imports settings only.
"""
