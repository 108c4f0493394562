//! Slipway's own kinds, group `slipway.dev/v1alpha1`: NodeClass, NodePool, Machine.
