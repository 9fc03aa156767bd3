"""What every run shares: the order in which it starts, resumes, trains and tests; batch arithmetic; checks of files."""
