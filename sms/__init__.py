"""What the node tells subscribers."""
