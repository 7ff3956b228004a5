"""Ways to call a service, behind one interface: item stream, plain unary calls, in process."""
