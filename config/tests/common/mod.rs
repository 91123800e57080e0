//! A world of key files without a disk.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jetway_config::{Checked, KeyFileFault, Problem, Surroundings, parse};
use zeroize::Zeroizing;

/// CPUs of the machine that tests pretend to have.
pub const CPUS: usize = 8;

/// Every key file holds a key, but for names that say otherwise.
pub fn keys(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileFault> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    match name {
        "missing.key" => Err(KeyFileFault::Missing),
        "exposed.key" => Err(KeyFileFault::Exposed(0o644)),
        "folder" => Err(KeyFileFault::NotRegular),
        "huge.key" => Err(KeyFileFault::TooLarge),
        "forbidden.key" => Err(KeyFileFault::Unreadable(std::io::ErrorKind::PermissionDenied)),
        "garbage.key" => Ok(Zeroizing::new(b"correct horse battery staple\n".to_vec())),
        _ => {
            let mut key = [0x40; 32];
            for (own, byte) in key.iter_mut().zip(name.bytes()) {
                *own = byte;
            }
            Ok(Zeroizing::new(format!("{}\n", STANDARD.encode(key)).into_bytes()))
        }
    }
}

/// Parses `text` on the pretended machine.
pub fn check(text: &str, file: &str) -> Result<Checked, Vec<Problem>> {
    parse(text, file, &Surroundings { cpus: CPUS, keys: &keys })
}
