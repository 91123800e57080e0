//! A node under load; each test wants the machine for itself, so they run one after another.

mod crowd;
mod flood;
mod hostile;
mod workers;
