//! `jetway keygen` and `jetway pubkey`.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jetway_config::{PublicKey, Secret};
use jetway_pipelines::wireguard::x25519::KeyPair;
use serde_json::json;
use zeroize::Zeroizing;

use super::CliError;
use super::args::{Global, KeygenArguments, PubkeyArguments};
use super::output;

/// The base64 of 32 bytes has 44 characters; a line end may follow. More is no key.
const KEY_TEXT_LIMIT: u64 = 256;

/// Makes a key and writes it to a file or to standard output.
pub fn keygen(global: &Global, arguments: &KeygenArguments) -> Result<ExitCode, CliError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut()).map_err(|error| CliError::Refused(format!("no randomness: {error}")))?;
    if !arguments.preshared {
        clamp(&mut bytes);
    }
    let secret = Secret::take(&mut bytes);
    let text = Zeroizing::new(STANDARD.encode(secret.expose()) + "\n");
    let public_key = if arguments.preshared { None } else { Some(public_key(&secret)) };
    let Some(path) = &arguments.file else {
        if global.json {
            let public_key = public_key.map(|key| key.to_string());
            output::json(&json!({ "key": text.trim_end(), "public_key": public_key }));
        } else {
            output::text_line(text.trim_end());
        }
        return Ok(ExitCode::SUCCESS);
    };
    write_key(path, text.as_bytes())?;
    match public_key {
        _ if global.json => {
            output::json(&json!({ "file": path, "public_key": public_key.map(|key| key.to_string()) }));
        }
        Some(key) => output::text_line(&key.to_string()),
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the public key of a private key.
pub fn pubkey(global: &Global, arguments: &PubkeyArguments) -> Result<ExitCode, CliError> {
    let key = public_key(&read_key(arguments.file.as_deref())?);
    if global.json {
        output::json(&json!({ "public_key": key.to_string() }));
    } else {
        output::text_line(&key.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// The public key of a private key.
pub fn public_key(private: &Secret) -> PublicKey {
    PublicKey(*KeyPair::new(private.expose()).public())
}

/// Reads a key in base64 from a file, or from standard input.
pub fn read_key(path: Option<&Path>) -> Result<Secret, CliError> {
    let name = path.unwrap_or(Path::new("standard input"));
    let mut text = Zeroizing::new(String::with_capacity(KEY_TEXT_LIMIT as usize));
    let read = match path {
        Some(path) => std::fs::File::open(path).and_then(|file| file.take(KEY_TEXT_LIMIT).read_to_string(&mut text)),
        None => io::stdin().lock().take(KEY_TEXT_LIMIT).read_to_string(&mut text),
    };
    read.map_err(|source| CliError::File { what: "read the key in", path: name.into(), source, hint: "" })?;
    let decoded = Zeroizing::new(STANDARD.decode(text.trim()).unwrap_or_default());
    let mut bytes: [u8; 32] = decoded.as_slice().try_into().map_err(|_| {
        CliError::Refused(format!(
            "{} holds no key: a key is 44 characters of base64, as `jetway keygen` makes it",
            name.display()
        ))
    })?;
    Ok(Secret::take(&mut bytes))
}

fn write_key(path: &Path, text: &[u8]) -> Result<(), CliError> {
    let failed = |source: io::Error| {
        let hint = match source.kind() {
            io::ErrorKind::AlreadyExists => "; keys are never overwritten: name another file, or remove this one",
            io::ErrorKind::NotFound => "; make its folder first",
            _ => "",
        };
        CliError::File { what: "write the key file", path: path.to_owned(), source, hint }
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(failed)
}

/// As RFC 7748 section 5 does before use; `wg genkey` stores keys so.
fn clamp(key: &mut [u8; 32]) {
    key[0] &= 248;
    key[31] = key[31] & 127 | 64;
}
