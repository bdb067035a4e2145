"""What happens at boot and at shutdown, and what an interrupted command left."""
