"""`umt extract`: features of the videos of a list, with the recipe that they were made by."""
