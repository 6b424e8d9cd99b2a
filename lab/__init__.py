"""A whole site on one machine: three hosts as containers inside a network namespace of their own."""
