"""OpenAI's embeddings and models, and the common form of rerank. Pure."""
