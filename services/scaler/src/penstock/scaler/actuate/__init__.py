"""Who makes it so: processes, Kubernetes, AWS, or nobody."""
