"""What every command line is made of: flags, one line for bad input, stops and exit codes, text on the terminal."""
