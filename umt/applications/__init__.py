"""Tools that use trained weights on videos: `umt predict`, `extract`, `probe`, `visualize`."""
