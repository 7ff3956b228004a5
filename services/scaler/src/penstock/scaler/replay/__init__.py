"""What the scaler would have decided on a demand trace, in virtual time. Imports pools."""
