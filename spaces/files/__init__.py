"""Files and text that come from elsewhere, and files that must be whole: how both are dealt with, on every floor."""
