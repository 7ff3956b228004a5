"""The wire formats of providers, one module each. Pure: bytes and messages in, values out."""
