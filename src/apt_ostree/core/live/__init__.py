"""Live changes: plans a change of the running system, carries it out, and undoes it."""
