//! An HTTP server and a download from it.

use super::{Namespace, PYTHON, Process, World};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `python3 -m http.server` in a folder with one file `data` of random bytes.
pub struct HttpServer {
    data: PathBuf,
    _process: Process,
}

impl HttpServer {
    /// Starts it on a port for IPv4 and IPv6, with `bytes` bytes in its file, and waits until it listens.
    #[track_caller]
    pub fn start(world: &World, namespace: &Namespace, port: u16, bytes: usize) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("http-")
            .tempdir_in(world.folder())
            .expect("a folder in the world's")
            .keep();
        let data = folder.join("data");
        let content: Vec<u8> =
            std::iter::repeat_with(rand::random::<u64>).flat_map(u64::to_le_bytes).take(bytes).collect();
        std::fs::write(&data, content).expect("the world's folder takes a file");
        let (port, directory) = (port.to_string(), folder.to_string_lossy().into_owned());
        let arguments = ["-u", "-m", "http.server", &port, "--bind", "::", "--directory", &directory];
        let mut process = Process::start(world, namespace, PYTHON, &arguments);
        process.wait_for_output("Serving HTTP", Duration::from_secs(20));
        HttpServer { data, _process: process }
    }

    /// The file that it serves as `/data`.
    pub fn data(&self) -> &Path {
        &self.data
    }
}

/// Downloads a URL with curl inside a namespace within `limit`.
#[track_caller]
pub fn download(namespace: &Namespace, url: &str, into: &Path, limit: Duration) -> Result<(), String> {
    let limit = limit.as_secs().max(1).to_string();
    let into = into.to_string_lossy();
    namespace
        .try_run("curl", &["-sS", "-g", "--fail", "--noproxy", "*", "--max-time", &limit, "-o", &into, url])
        .map(drop)
}
