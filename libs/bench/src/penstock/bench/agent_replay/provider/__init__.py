"""The scripted provider: its prefix cache, prices, times and process. Imports `traffic`."""
