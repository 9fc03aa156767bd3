"""`umt ensemble`: one answer from several tests of the same videos."""
