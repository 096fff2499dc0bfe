"""Reads run records and puts them side by side: tables."""
