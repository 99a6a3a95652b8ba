"""What Gradio does of its own accord in a Space, and this app does without; app.py calls it before it serves."""

from gradio import http_server


def without_reloading() -> None:
    """No hot reload: it would run code that is edited while the app serves, and without its package it fails aloud."""
    http_server.watchfn_spaces = lambda _: None
