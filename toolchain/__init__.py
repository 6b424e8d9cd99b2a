"""The Pulumi engine for keadb: finds or builds the CLI, provides the `command` plugin, and says what is used.

Not here: anything about sites, hosts or services. `python -m toolchain setup` makes everything ready.
"""
