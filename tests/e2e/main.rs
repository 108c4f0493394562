//! End-to-end tests: the real binary, containerd, kubectl.
