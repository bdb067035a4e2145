"""Container images: fetches one, imports it as a commit, and has machines follow it."""
