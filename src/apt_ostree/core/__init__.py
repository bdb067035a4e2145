"""The verbs: each is one function that reads from top to bottom."""
