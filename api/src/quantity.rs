//! Quantities (`100m`, `1.5Gi`): parsing, comparing and printing them as Kubernetes does.
