"""Arithmetic, exact and fast, with no opinion: correlation, pixels, processes, batch norm, devices."""
