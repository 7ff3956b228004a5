"""What a page is made of: blocks as values, their HTML, ECharts options, numbers as text.

Imports nothing else of the console, and asks no service.
"""
