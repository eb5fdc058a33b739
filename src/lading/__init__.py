"""lading: a container engine for machine learning. ARCHITECTURE.md is the map of the rooms."""

__version__ = "0.1.0"
