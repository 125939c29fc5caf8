"""What a run was, told afterwards: from all that its folder records, as a function of values."""
