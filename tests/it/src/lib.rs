//! The home of the integration tests, which are in `tests/it/`: one binary, a file a capability.
//!
//! The library itself is empty, since cargo wants a package to have one. What tests share lies in `heyuan-harness`; a capability
//! is tested from outside, by the binary and its HTTP API, so there is nothing of Heyuan to link here.
