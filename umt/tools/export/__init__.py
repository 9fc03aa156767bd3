"""`umt export`: weights out of this library, in four forms, each checked before it takes its place."""
