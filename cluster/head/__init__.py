"""The head of a cluster, from outside: its job server, and what goes there and comes back."""
