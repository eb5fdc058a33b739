"""The OCI runtime command line, `lading-runtime`: containers from bundles, without a daemon. Imports nothing here."""
