"""What the system shows and keeps: packages of commits, overlays, live state, generations."""
