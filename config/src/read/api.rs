//! Reads `[api]`.

use std::path::PathBuf;

use crate::intent::{Api, Node};
use crate::section::{Field, Section};
use crate::value;

/// The longest path of a Unix socket in bytes: `sun_path` without its NUL.
const SOCKET_PATH_BYTES: usize = 107;

pub(super) fn read(section: Option<Section<'_>>, node: Option<&Node>) -> Option<Api> {
    let default = node.map(|node| PathBuf::from(format!("/run/jetway/{}.sock", node.name)));
    let Some(mut section) = section else {
        return Some(Api { socket: default?, metrics: None });
    };
    let socket = match section.field("socket") {
        Some(field) => socket(&field),
        None => default,
    };
    let metrics = section.field("metrics").map(|field| value::listen_address(&field));
    section.finish(&[]);
    Some(Api { socket: socket?, metrics: metrics.flatten() })
}

fn socket(field: &Field<'_>) -> Option<PathBuf> {
    let text = field.text("\"/run/jetway/edge-1.sock\"")?;
    if !text.starts_with('/') || text.ends_with('/') || text.contains('\0') {
        field.error("`socket` is not the absolute path of a file", "for example \"/run/jetway/edge-1.sock\"");
        return None;
    }
    if text.len() > SOCKET_PATH_BYTES {
        field.error(
            format!("`socket` is longer than a Unix socket's path may be: {} bytes", text.len()),
            format!("choose one of at most {SOCKET_PATH_BYTES} bytes"),
        );
        return None;
    }
    Some(text.into())
}
