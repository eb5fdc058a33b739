"""Layers: tar streams of changes to a file tree (OCI image-spec layer.md). Writing, reading, applying,
compressing."""
