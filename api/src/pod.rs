//! What several components need to know of a pod: its phase, its readiness, the resources it asks for.
