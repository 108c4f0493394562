//! Owner references: who controls an object.
