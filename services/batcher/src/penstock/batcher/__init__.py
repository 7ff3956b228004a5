"""The batcher: a queue before each inference instance that orders requests and groups them."""
