"""What tests share: fakes that pass the suites of what they stand for, scripted upstreams, servers
for the length of a test.
"""
