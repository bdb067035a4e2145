"""Use cases: each verb is one function that reads from top to bottom."""
