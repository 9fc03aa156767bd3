"""A kind of work from outside of `umt`: `umt regress` learns one number from a clip (docs/extend.md)."""
