"""The national side in small: lists in SQLite, published signed; for laboratories, demonstrations and tests."""
