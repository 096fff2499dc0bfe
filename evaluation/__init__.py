"""Runs and measures search methods: data, training, stages, the ledger, run folders and the command line."""
