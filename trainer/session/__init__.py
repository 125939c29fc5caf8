"""States of callbacks as values."""
