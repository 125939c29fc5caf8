"""The step engine: one microbatch after another becomes a vector, their sum becomes an update."""
