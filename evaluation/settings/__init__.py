"""What a run is told. Nothing here imports torch."""
