"""Boot, shutdown, and recovery after an interrupted command."""
