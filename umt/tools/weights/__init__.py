"""`umt weights`: weights of others as teachers."""
