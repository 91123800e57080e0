//! End-to-end tests of Jetway: the library that its worlds are built from.

pub mod world;
