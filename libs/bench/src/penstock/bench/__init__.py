"""The benchmarks, a folder each.

`harness` is what they share, `peers` what runs in other environments.
"""
