"""Whether a place to train is well: its machines looked at, and what a run needs of them proved on each."""
