"""What came of it: costs, the audit, the ledger, the page. Pure; imports what the others found."""
