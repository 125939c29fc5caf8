"""Summing vectors over workers: the seam, connections between them, and who sends what when."""
