"""Truth tables and published figures in files."""
