"""The lists, from the command line's side."""
