"""Floor 2: what is kept on disk: blobs, metadata, images, leases, snapshots, archives of images."""
