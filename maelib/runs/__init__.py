"""Runs on disk: trained or found again, their records, their weights, and how far they are."""
