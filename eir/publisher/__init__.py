"""The national side in small, for laboratories, tests and the demonstration."""
