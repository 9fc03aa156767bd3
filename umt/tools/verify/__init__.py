"""`umt verify`: tests a checkpoint and compares it with its published number."""
