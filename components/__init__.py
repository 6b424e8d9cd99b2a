"""What runs on the machines: one module a service, holding its pure bundle functions and its component.

Only ``components.host`` calls ``remote.Command``; the services decide what and in which order.
"""
