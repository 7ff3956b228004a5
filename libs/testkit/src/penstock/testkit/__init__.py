"""What tests share: fakes, scripted upstreams, a TCP proxy, and servers for one test."""
