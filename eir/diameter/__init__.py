"""Diameter S13 and the base protocol under it: everything that is not answered on the data plane's own path."""
