"""The step engine: one microbatch after another becomes a contribution, sums become an update."""
