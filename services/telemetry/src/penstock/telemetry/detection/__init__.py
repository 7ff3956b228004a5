"""Anomalies: detectors over metrics and requests, drift of quality, and incidents made of findings.

Imports spans and window.
"""
