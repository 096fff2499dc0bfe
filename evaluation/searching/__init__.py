"""What a search is given, and how its candidates are trained."""
