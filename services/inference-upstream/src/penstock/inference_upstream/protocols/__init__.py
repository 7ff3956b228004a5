"""Providers' wires, one module each. Pure: bytes and messages in, values out."""
