//! Headers against the RFCs' words, against real packets and against a second parser.

mod checksums;
mod differential;
mod errors;
mod headers;
mod linux;
mod mss;
