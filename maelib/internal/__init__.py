"""What every room uses: options, files, folders and random numbers. Only ``rng`` imports torch."""
