"""Where the bytes of a data set lie: local files, any URL that fsspec reads, tar shards; and copies of remote ones."""
