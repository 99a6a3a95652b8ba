"""Runs the local Hub as a process of its own."""

from tests.hub.server import main

main()
