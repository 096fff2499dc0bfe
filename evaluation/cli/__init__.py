"""What the commands share: flags, and tables on the terminal."""
