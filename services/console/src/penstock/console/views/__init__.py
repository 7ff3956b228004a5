"""The views: each asks the services one question and gives blocks. No drawing here."""
