"""The driver's disk, for machines that do not see it."""
