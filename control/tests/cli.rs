//! The program `jetway` as a user types it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PUBLIC: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

fn jetway(folder: &Path, arguments: &str, input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jetway"));
    command.args(arguments.split_whitespace()).current_dir(folder).env_remove("JETWAY_CONFIG");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn ok(folder: &Path, arguments: &str, input: &str) -> String {
    let output = jetway(folder, arguments, input);
    assert!(output.status.success(), "jetway {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(folder: &Path, arguments: &str) -> String {
    let output = jetway(folder, arguments, "");
    assert_eq!(output.status.code(), Some(1), "jetway {arguments}");
    String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap()
}

/// A folder with `node.toml` and its key.
fn site() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("server.key");
    std::fs::write(&key, PRIVATE).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let socket = folder.path().join("api.sock");
    let text = format!(
        "[node]\nname = \"jw-ctl-test\"\nid = 1\n[engine]\ncores = [0]\n\
         [[port]]\nname = \"wan\"\ndevice = \"net_null0\"\naddresses = [\"198.51.100.1/24\"]\n\
         [[tunnel]]\nname = \"jw0\"\nlisten_port = 51820\nprivate_key_file = \"server.key\"\n\
         addresses = [\"10.8.0.1/16\"]\n\
         [[tunnel.peer]]\nname = \"alice\"\npublic_key = \"{PUBLIC}\"\nallowed_ips = [\"10.8.0.2/32\"]\n\
         [api]\nsocket = \"{}\"\n",
        socket.display()
    );
    std::fs::write(folder.path().join("node.toml"), text).unwrap();
    folder
}

#[test]
fn keygen_makes_a_file_for_its_owner_alone_and_never_overwrites_one() {
    let folder = tempfile::tempdir().unwrap();
    let public = ok(folder.path(), "keygen server.key", "");
    let path = folder.path().join("server.key");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let private = std::fs::read_to_string(&path).unwrap();
    assert_eq!(ok(folder.path(), "pubkey server.key", ""), public);
    assert_eq!(ok(folder.path(), "pubkey", &private), public);
    let error = refused(folder.path(), "keygen server.key");
    assert!(error.contains("server.key") && error.contains("never overwritten"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), private);
}

#[test]
fn keys_are_those_of_wg() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(ok(folder.path(), "pubkey", PRIVATE).trim(), PUBLIC);
    let private = ok(folder.path(), "keygen", "");
    let mut wg = Command::new("wg").arg("pubkey").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    wg.stdin.take().unwrap().write_all(private.as_bytes()).unwrap();
    let theirs = String::from_utf8(wg.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(ok(folder.path(), "pubkey", &private), theirs);
    let error = jetway(folder.path(), "pubkey", "not a key");
    assert!(String::from_utf8_lossy(&error.stderr).contains("44 characters of base64"));
}

#[test]
fn check_shows_all_problems_at_once_and_exits_with_one() {
    let folder = site();
    let good = ok(folder.path(), "check --config node.toml", "");
    assert!(good.contains("good: node jw-ctl-test with 1 worker, 1 port, 1 tunnel, 1 peer"), "{good}");
    let broken = std::fs::read_to_string(folder.path().join("node.toml")).unwrap();
    let broken = broken.replace("10.8.0.2/32", "10.8.0.2/33").replace("51820", "70000");
    std::fs::write(folder.path().join("broken.toml"), broken).unwrap();
    let text = refused(folder.path(), "check -c broken.toml");
    assert!(text.contains("broken.toml") && text.contains("70000") && text.contains("10.8.0.2/33"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&refused(folder.path(), "check -c broken.toml --json")).unwrap();
    assert_eq!(json["ok"], false);
    assert!(json["problems"].as_array().unwrap().len() >= 2, "{json}");
    assert!(json["problems"][0]["line"].as_u64().unwrap() > 0 && json["problems"][0]["hint"].is_string(), "{json}");
}

#[test]
fn a_clients_configuration_is_one_that_wg_quick_reads() {
    let folder = site();
    let text = ok(folder.path(), "client-config alice --private-key-file server.key -c node.toml", "");
    let conf = folder.path().join("alice.conf");
    std::fs::write(&conf, &text).unwrap();
    std::fs::set_permissions(&conf, std::fs::Permissions::from_mode(0o600)).unwrap();
    let strip = Command::new("wg-quick").arg("strip").arg(&conf).output().unwrap();
    let stripped = String::from_utf8(strip.stdout).unwrap();
    assert!(strip.status.success() && stripped.contains("AllowedIPs = 10.8.0.0/16"), "{stripped}");
    let picture = ok(folder.path(), "client-config alice --private-key-file server.key --qr -c node.toml", "");
    assert!(picture.lines().count() > 20, "{picture}");
    assert!(picture.lines().next().unwrap().chars().all(|c| c == '█'), "a light margin:\n{picture}");
    let error = refused(folder.path(), "client-config alice --qr -c node.toml");
    assert!(error.contains("--private-key-file"), "{error}");
}

#[test]
fn without_a_running_node_the_commands_say_so() {
    let folder = site();
    for command in [
        "stats",
        "peers",
        "vips",
        "vips --dry-run",
        "flows",
        "flows flush",
        "explain 45",
        "backend drain erp/erp-1",
        "reload",
        "drain",
        "ready",
    ] {
        let error = refused(folder.path(), &format!("{command} -c node.toml"));
        assert!(error.contains("is it running?") && error.contains("api.sock"), "{command}: {error}");
    }
    let error = refused(folder.path(), "stats -c missing.toml");
    assert!(error.contains("missing.toml") && error.contains("--config"), "{error}");
}

#[test]
fn a_running_node_is_asked_at_the_socket_of_its_configuration() {
    let folder = site();
    let listener = UnixListener::bind(folder.path().join("api.sock")).unwrap();
    let answers = [
        r#"{"response":"readiness","state":"ready"}"#,
        r#"{"response":"reloaded","peers_added":1,"peers_removed":2,"peers_changed":0,"other":[],"needs_restart":["engine.cores"],"warnings":[]}"#,
        r#"{"response":"failed","message":"the configuration has errors","hint":"correct them","details":"error: line 7"}"#,
        r#"{"response":"peers","peers":[]}"#,
        r#"{"response":"vips","vips":[]}"#,
        r#"{"response":"ordered"}"#,
    ];
    let server = std::thread::spawn(move || {
        answers.map(|answer| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut request).unwrap();
            stream.write_all(format!("{answer}\n").as_bytes()).unwrap();
            request
        })
    });
    assert_eq!(ok(folder.path(), "ready -c node.toml", ""), "ready\n");
    let reloaded = ok(folder.path(), "reload -c node.toml", "");
    assert!(reloaded.contains("1 peers added, 2 removed") && reloaded.contains("engine.cores"), "{reloaded}");
    let error = refused(folder.path(), "reload -c node.toml");
    assert!(error.contains("error: line 7") && error.contains("hint: correct them"), "{error}");
    assert_eq!(ok(folder.path(), "peers alice --socket api.sock --json", "").trim(), "[]");
    assert_eq!(ok(folder.path(), "vips erp -c node.toml", ""), "no virtual services\n");
    let drained = ok(folder.path(), "backend drain erp/erp-1 --deadline 5m -c node.toml", "");
    assert!(drained.starts_with("erp/erp-1 draining"), "{drained}");
    let error = refused(folder.path(), "backend disable erp/erp-1 --deadline 5m -c node.toml");
    assert!(error.contains("only a drain"), "{error}");
    let requests = server.join().unwrap();
    assert_eq!(
        requests[5],
        "{\"request\":\"backend\",\"service\":\"erp\",\"backend\":\"erp-1\",\"action\":\"drain\",\"deadline_seconds\":300}\n"
    );
    assert_eq!(requests[3], "{\"request\":\"peers\",\"name\":\"alice\"}\n");
}

#[test]
fn help_teaches_with_examples() {
    let folder = tempfile::tempdir().unwrap();
    let help = ok(folder.path(), "--help", "");
    assert!(help.contains("Examples:") && help.contains("JETWAY_CONFIG"), "{help}");
    for command in [
        "run",
        "check",
        "stats",
        "peers",
        "vips",
        "backend",
        "keygen",
        "pubkey",
        "client-config",
        "reload",
        "drain",
        "ready",
    ] {
        assert!(help.contains(command), "{command} in {help}");
        let own = ok(folder.path(), &format!("{command} --help"), "");
        assert!(own.contains("Usage: jetway"), "{own}");
    }
    assert_eq!(jetway(folder.path(), "fly", "").status.code(), Some(2));
}
