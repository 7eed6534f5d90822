"""Temporary access: when it ends."""
