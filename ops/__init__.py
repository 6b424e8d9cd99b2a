"""The ``keadb`` command: what people and pipelines run.

It reads stack files, drives the engine, reads secrets and asks hosts for their state. It never changes a host
by itself: whatever changes a host is a bundle that the engine sends.
"""
