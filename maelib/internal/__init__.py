"""Helpers of the other packages: options, files, paths, shapes and random numbers."""
