"""System call filters: `profile` says what the default allows, `assemble` turns an OCI seccomp object into BPF."""
