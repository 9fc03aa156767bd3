"""Tools that bring weights in and out: `umt weights`, `umt export`."""
