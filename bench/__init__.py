"""lading beside the engines this machine has: one run, medians, ratios. `python -m bench --help`; needs root.

Every peer gets data, run and socket directories of its own below one scratch directory, is started by the bench and
stopped by it. Nothing here is imported by lading.
"""
