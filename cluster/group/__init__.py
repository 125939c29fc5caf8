"""Who belongs to the group, what a worker does in it, and what becomes of it when one is lost."""
