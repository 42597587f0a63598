"""Real-time WebSockets for Python."""
