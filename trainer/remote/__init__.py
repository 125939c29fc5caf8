"""A script, or a call of a trainer, as a job of a Ray cluster that is reached by its job server's port alone."""
