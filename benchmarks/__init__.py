"""Measurements: each writes a table of rows into results/<machine>.json, from which README's tables are rendered."""
