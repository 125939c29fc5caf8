"""The driver: prepares a run, starts it on the workers, answers them, and records and shows what comes of it."""
