"""The views: each asks the services one question and returns blocks. Nothing is drawn here."""
