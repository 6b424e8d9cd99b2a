"""keadb's own `command` plugin: `command:remote:Command` as the official pulumi-command 1.2.1 serves it.

For machines where the official plugin cannot be downloaded. It serves what keadb uses and refuses the rest
(no local.Command, no CopyToRemote, no proxy, no agent). Known differences are listed in docs/toolchain.md.
Imports nothing else of keadb: a copy of this folder runs from the cache.
"""

VERSION = "1.2.1"
