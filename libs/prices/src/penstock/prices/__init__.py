"""Price sheets, and the arithmetic from tokens to integer micro-dollars."""
