"""Measurements on real networks; nothing here is part of the package."""
