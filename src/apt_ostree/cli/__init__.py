"""The command line: commands, the worker's client, and the only place that prints."""
