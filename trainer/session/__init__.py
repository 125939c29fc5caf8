"""A run as its callbacks see it: the position in it, what the chief does, what is saved."""
