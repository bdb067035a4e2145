"""Makes disk images that boot a commit."""
