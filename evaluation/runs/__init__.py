"""One run: its folder, its stages, its record."""
