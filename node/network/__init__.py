"""Peers: control messages, announcements and bulk transfer, behind the `Network` port (`port.py`)."""
