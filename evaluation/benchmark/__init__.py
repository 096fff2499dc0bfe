"""Tables of trained networks: how they are built, read, checked, and searched."""
