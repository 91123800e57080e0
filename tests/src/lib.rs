//! Tests that span crates: the library that end-to-end worlds and fuzz targets are built from.

pub mod fuzz;
pub mod world;
