"""Files of weights: fetched, opened without running anything of them, described, and shared on the hub."""
