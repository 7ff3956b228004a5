"""Anomaly detectors, and the incidents that their findings become. Imports window and spans."""
