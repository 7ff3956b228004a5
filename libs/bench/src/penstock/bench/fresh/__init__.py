"""The benchmark `fresh`: what a newcomer's first ten minutes are like."""
