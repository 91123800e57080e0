//! Configurations for tests, made by the real loader.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jetway_config::Config;

/// Loads a configuration with a node, an engine, a port and `rest`, and the server's key in `server.key`.
pub fn load(folder: &Path, rest: &str, server_key: &str) -> Config {
    let path = write(folder, rest, server_key);
    match jetway_config::load(&path, 8) {
        Ok(checked) => checked.config,
        Err(problems) => panic!("{}", jetway_config::render(&problems, jetway_config::Style::Plain)),
    }
}

/// Writes such a configuration, and returns its path.
pub fn write(folder: &Path, rest: &str, server_key: &str) -> std::path::PathBuf {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(folder.join("server.key")).unwrap().write_all(server_key.as_bytes()).unwrap();
    let path = folder.join("node.toml");
    let head = "[node]\nname = \"edge-1\"\nid = 1\n[engine]\ncores = [1]\nidle = \"backoff\"\n\
                [[port]]\nname = \"wan\"\ndevice = \"net_null0\"\naddresses = [\"198.51.100.1/24\"]\n";
    std::fs::write(&path, format!("{head}{rest}")).unwrap();
    path
}
