"""In what order rows come, and how a pass is cut: pure functions of values."""
