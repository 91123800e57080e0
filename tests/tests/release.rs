//! What wants a release build. One binary, because to link one is to optimize all dependencies once more.

#[path = "fuzz/main.rs"]
mod fuzz;
#[path = "load/main.rs"]
mod load;
#[path = "nic/main.rs"]
mod nic;
