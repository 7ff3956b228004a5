"""The benchmark `index`: what the field claims, beside what was measured here."""
