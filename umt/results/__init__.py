"""Tools on what tests have left: `umt ensemble`, `umt verify`."""
