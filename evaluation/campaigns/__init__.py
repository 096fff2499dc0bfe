"""Campaigns: many runs, planned in one file, carried out by one command that can be stopped at any moment."""
