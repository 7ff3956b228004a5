"""Models at run time: cards, tokenizers, sessions, local decoders."""
