"""One file and one card per method; folders are the reader's families."""
