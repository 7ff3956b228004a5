"""Whether the Open Inference Protocol (KServe v2) is served as its clients expect."""
