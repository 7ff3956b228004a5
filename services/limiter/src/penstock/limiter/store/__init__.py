"""The ledger's store: its operations, the connection to it, and what happens while it is lost."""
