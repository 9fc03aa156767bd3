"""`umt data`: tools that make, look at and repair data sets. Nothing here is needed by a run."""
