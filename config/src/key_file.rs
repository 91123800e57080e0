//! Keys that are kept in files of their own.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::section::Field;
use crate::source::shown;

/// Where the contents of key files come from.
///
/// [`crate::load`] reads them from disk; a test or an editor gives a closure.
pub trait KeyFiles {
    /// The content of the file that the configuration names as `path`, which may be relative to the configuration file.
    fn read(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileFault>;

    /// Where that file is, for messages that tell what to do with it.
    fn locate(&self, path: &Path) -> PathBuf {
        path.to_path_buf()
    }
}

/// Why a key file is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFileFault {
    /// There is no such file.
    Missing,
    /// It is a directory, a device or the like.
    NotRegular,
    /// Its group or others may read or write it; the permission bits are given.
    Exposed(u32),
    /// It has more bytes than [`KeyFileFault::MAX_BYTES`].
    TooLarge,
    /// The operating system refused.
    Unreadable(io::ErrorKind),
}

impl KeyFileFault {
    /// The most bytes that a key file may have: room for a key and generous white space.
    pub const MAX_BYTES: u64 = 4096;
}

impl<F: Fn(&Path) -> Result<Zeroizing<Vec<u8>>, KeyFileFault>> KeyFiles for F {
    fn read(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileFault> {
        self(path)
    }
}

/// The key in the file that `field` names; `maker` is the command that makes such a key.
pub(crate) fn secret(field: &Field<'_>, files: &dyn KeyFiles, maker: &str) -> Option<Secret> {
    let key = field.mark.key;
    let path = field.text("\"server.key\"")?;
    if path.is_empty() || path.contains('\0') {
        field.error(format!("`{key}` is not a path: {}", shown(path)), "for example \"server.key\"");
        return None;
    }
    if STANDARD.decode(path).is_ok_and(|bytes| bytes.len() == 32) {
        field.error(
            format!("`{key}` holds a key instead of the path of a file with the key"),
            "put the key into a file with mode 600 and write its path here; take the key as known to whoever read this file",
        );
        return None;
    }
    let content = files.read(Path::new(path)).map_err(|fault| {
        let place = files.locate(Path::new(path)).display().to_string();
        report(field, &place, fault, maker);
    });
    let content = content.ok()?;
    let secret = decode(&content);
    if secret.is_none() {
        field.error(
            format!("the file {} does not hold a key", shown(path)),
            format!("it must hold base64 of 32 bytes, 44 characters, as `{maker}` writes it"),
        );
    }
    secret
}

fn report(field: &Field<'_>, path: &str, fault: KeyFileFault, maker: &str) {
    let name = shown(path);
    let (message, hint) = match fault {
        KeyFileFault::Missing => (
            format!("the key file {name} does not exist"),
            format!("paths are relative to the configuration file; make a key with `(umask 077; {maker} > {path})`"),
        ),
        KeyFileFault::NotRegular => {
            (format!("the key file {name} is not a regular file"), "name a file that holds the key".to_owned())
        }
        KeyFileFault::Exposed(mode) => (
            format!("the key file {name} can be read by others than its owner (mode {:03o})", mode & 0o777),
            format!("run `chmod 600 {path}`"),
        ),
        KeyFileFault::TooLarge => (
            format!("the key file {name} is larger than {} bytes", KeyFileFault::MAX_BYTES),
            "name a file that holds one key and nothing else".to_owned(),
        ),
        KeyFileFault::Unreadable(kind) => (
            format!("the key file {name} cannot be read: {kind}"),
            "run as a user who may read it, usually root".to_owned(),
        ),
    };
    field.error(message, hint);
}

fn decode(content: &[u8]) -> Option<Secret> {
    let mut buffer = Zeroizing::new([0; 36]);
    let length = STANDARD.decode_slice(content.trim_ascii(), buffer.as_mut()).ok().filter(|&length| length == 32)?;
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(buffer.get(..length)?);
    (*key != [0; 32]).then(|| Secret::take(&mut key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_wg_genkey_writes_it_and_nothing_else_is() {
        let text = STANDARD.encode([9; 32]);
        assert_eq!(decode(format!("{text}\n").as_bytes()).unwrap().expose(), &[9; 32]);
        let long = STANDARD.encode([9; 33]);
        for wrong in ["", "\n", "x", &text[..43], &long, &format!("{text}{text}"), &STANDARD.encode([0; 32])] {
            assert!(decode(wrong.as_bytes()).is_none(), "{wrong:?}");
        }
    }
}
