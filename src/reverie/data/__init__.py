"""Formats on disk, builders and readers of training data."""
