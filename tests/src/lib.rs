//! What the tests of the whole share: a server to test against.
