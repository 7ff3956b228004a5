"""How a service is put together and kept running: the outside world it is given, its ports, its
life from start to drain. Services hand `run_service` their settings and their `build`.
"""
