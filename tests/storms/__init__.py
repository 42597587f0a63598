"""Connections by the thousand against servers in processes of their own."""
