//! Conditions: reading and setting the `conditions` of a status.
