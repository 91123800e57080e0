//! Configurations and key files on a real disk.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jetway_config::{Checked, Problem, load};
use tempfile::TempDir;

const CPUS: usize = 8;

const TEXT: &str = r#"
[node]
name = "edge-1"
id = 1

[engine]
cores = [1]

[[port]]
name = "wan"
device = "net_tap0"

[[tunnel]]
name = "jw0"
listen_port = 51820
private_key_file = "server.key"

[[tunnel.peer]]
name = "alice"
public_key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
allowed_ips = ["10.8.0.2"]
"#;

fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn key() -> String {
    format!("{}\n", STANDARD.encode([5; 32]))
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    write(&path, TEXT, 0o644);
    (folder, path)
}

/// The only problem of the configuration at `path`, which stands at the key file.
fn key_problem(path: &Path) -> Problem {
    let mut problems = load(path, CPUS).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let problem = problems.remove(0);
    assert_eq!((problem.place.line, problem.path.as_str()), (16, "tunnel[0].private_key_file"));
    assert_eq!(problem.file, path.display().to_string());
    problem
}

#[test]
fn a_key_file_beside_the_configuration_is_read() {
    let (folder, path) = folder();
    write(&folder.path().join("server.key"), key(), 0o600);
    let Checked { config, warnings } = load(&path, CPUS).unwrap();
    assert_eq!(config.tunnels[0].private_key.expose(), &[5; 32]);
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn a_link_to_a_private_file_is_followed() {
    let (folder, path) = folder();
    write(&folder.path().join("secret"), key(), 0o400);
    symlink("secret", folder.path().join("server.key")).unwrap();
    assert!(load(&path, CPUS).is_ok());
}

#[test]
fn a_key_file_that_group_or_others_may_use_is_refused_with_the_remedy() {
    let (folder, path) = folder();
    for mode in [0o640, 0o604, 0o620, 0o601, 0o777] {
        write(&folder.path().join("server.key"), key(), mode);
        let problem = key_problem(&path);
        assert!(problem.message.contains(&format!("mode {mode:o}")), "{problem}");
        let place = folder.path().join("server.key");
        assert_eq!(problem.hint, format!("run `chmod 600 {}`", place.display()));
    }
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
    let (folder, path) = folder();
    let place = folder.path().join("server.key");
    fs::create_dir(&place).unwrap();
    assert!(key_problem(&path).message.contains("not a regular file"));
    fs::remove_dir(&place).unwrap();
    // A device that never ends; a FIFO goes the same way.
    symlink("/dev/zero", &place).unwrap();
    assert!(key_problem(&path).message.contains("not a regular file"));
}

#[test]
fn missing_huge_and_wrong_key_files_are_told_apart_and_not_quoted() {
    let (folder, path) = folder();
    let place = folder.path().join("server.key");
    assert!(key_problem(&path).message.contains("does not exist"));
    write(&place, "A".repeat(5000), 0o600);
    assert!(key_problem(&path).message.contains("larger than"));
    let too_long = STANDARD.encode([5; 40]);
    write(&place, &too_long, 0o600);
    let problem = key_problem(&path);
    assert!(problem.message.contains("does not hold a key"), "{problem}");
    assert!(!format!("{problem:?}").contains(&too_long[..8]));
}

#[test]
fn a_configuration_that_cannot_be_read_is_one_problem_that_names_it() {
    let (folder, _) = folder();
    let missing = folder.path().join("other.toml");
    let problems = load(&missing, CPUS).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.contains("No such file"), "{}", problems[0]);
    assert_eq!(problems[0].file, missing.display().to_string());

    write(&missing, b"[node]\nname = \"\xff\"\n", 0o644);
    let problems = load(&missing, CPUS).unwrap_err();
    assert!(problems[0].message.contains("line 2"), "{}", problems[0]);
}
