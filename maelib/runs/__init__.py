"""Runs on disk: training or finding them, their records, weights and progress."""
