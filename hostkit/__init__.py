"""The applier: what runs as root on every host to bring bundles into force (contract 3 of the design).

Standard library only, Python 3.11 and newer: it is shipped to the hosts as one zipapp,
``/usr/lib/keadb/keadb-apply``. Importing any of its modules has no side effect.
"""

VERSION = 1
"""Raised when the program must not talk to an older applier."""
