"""The commands of `penstock`, a module for each subject. Each reads its arguments, calls Penstock
and shows the answer; nothing is decided here.
"""
