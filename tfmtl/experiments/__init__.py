"""Comparisons of methods on real rows: runs, statistics, tables, plots."""
