"""What tfmtl costs, on both stacks and beside its peers: ``python -m benchmarks``."""
