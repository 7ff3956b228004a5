"""Which instance should serve this, and what if it fails?"""
