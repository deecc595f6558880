"""The experiments of the paper and our own, each from one command."""
