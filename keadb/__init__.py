"""The pure core: site model, bundles, rendering, naming, platforms, PKI.

Nothing here imports pulumi, opens a connection, reads a clock or looks at who runs it: the same site file
gives the same bytes from any checkout, user and home.
"""
