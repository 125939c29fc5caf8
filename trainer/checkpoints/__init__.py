"""What a run goes on from: state as values, as files, and whose it is."""
