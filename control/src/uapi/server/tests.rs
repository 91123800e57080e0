use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt;
use jetway_config::{Config, PublicKey};

use super::*;
use crate::intent::{Intent, PeerChange};
use crate::uapi::PeerStatus;

const SERVER_KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const ALICE: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const BOB: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

/// A node without an engine: its intent, and what it would have done.
struct Memory {
    intent: Mutex<Intent>,
    changes: Mutex<Vec<PeerChange>>,
}

impl TunnelControl for Memory {
    fn status<'a>(&'a self, tunnel: &'a str) -> BoxFuture<'a, Result<TunnelStatus, UapiError>> {
        let intent = self.intent.lock().unwrap();
        let status = intent.tunnel(tunnel).map(|tunnel| TunnelStatus {
            private_key: tunnel.private_key().clone(),
            listen_port: tunnel.listen_port(),
            fwmark: tunnel.fwmark(),
            peers: tunnel.peers().map(|(key, peer)| peer_status(*key, &peer.spec)).collect(),
        });
        std::future::ready(status.ok_or_else(|| UapiError::no_such_tunnel(tunnel))).boxed()
    }

    fn apply<'a>(&'a self, tunnel: &'a str, request: SetRequest) -> BoxFuture<'a, Result<(), UapiError>> {
        let result = self.intent.lock().unwrap().set(tunnel, request);
        let result = result.map(|changes| self.changes.lock().unwrap().extend(changes.peers));
        std::future::ready(result).boxed()
    }
}

fn peer_status(public_key: PublicKey, spec: &crate::intent::PeerSpec) -> PeerStatus {
    PeerStatus {
        public_key,
        preshared_key: spec.preshared_key.clone(),
        endpoint: spec.endpoint,
        last_handshake: Some(Duration::from_secs(1_700_000_000)),
        received_bytes: 1_024,
        sent_bytes: 2_048,
        persistent_keepalive: spec.persistent_keepalive,
        allowed_ips: spec.allowed_ips.clone(),
    }
}

struct Served {
    tunnel: String,
    memory: Arc<Memory>,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    fn start(name: &str) -> Self {
        // The folder of these sockets is one for the whole machine.
        let tunnel = format!("jwctl{name}{}", std::process::id());
        let memory = Arc::new(Memory { intent: Mutex::default(), changes: Mutex::default() });
        memory.intent.lock().unwrap().reload(&config(&tunnel));
        let task = tokio::spawn(UapiServer::bind(&tunnel, memory.clone()).unwrap().run());
        Self { tunnel, memory, task }
    }

    async fn wg(&self, arguments: &str, input: &str) -> Output {
        let arguments = arguments.replace("TUNNEL", &self.tunnel);
        let input = input.to_owned();
        let run = move || {
            let mut command = Command::new("wg");
            command.args(arguments.split_whitespace());
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("the package wireguard-tools is installed");
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(input.as_bytes()).unwrap();
            drop(stdin);
            child.wait_with_output().unwrap()
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    async fn ok(&self, arguments: &str, input: &str) -> String {
        let output = self.wg(arguments, input).await;
        assert!(output.status.success(), "wg {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(socket_path(&self.tunnel));
    }
}

fn config(tunnel: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    crate::test_config::load(
        folder.path(),
        &format!(
            "[[tunnel]]\nname = \"{tunnel}\"\nlisten_port = 51820\nprivate_key_file = \"server.key\"\n\
             addresses = [\"10.8.0.1/16\"]\n\
             [[tunnel.peer]]\nname = \"alice\"\npublic_key = \"{ALICE}\"\nallowed_ips = [\"10.8.0.2/32\"]\n"
        ),
        SERVER_KEY,
    )
}

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: wg looks for sockets in {FOLDER}, which needs root");
    }
    is_root
}

#[tokio::test]
async fn wg_show_sees_a_tunnel_and_its_peers() {
    if !is_root() {
        return;
    }
    let served = Served::start("a");
    let text = served.ok("show TUNNEL", "").await;
    for part in [ALICE, "listening port: 51820", "10.8.0.2/32", "1.00 KiB received, 2.00 KiB sent"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(served.ok("show TUNNEL private-key", "").await.trim(), SERVER_KEY);
    assert_eq!(served.ok("show TUNNEL latest-handshakes", "").await.trim(), format!("{ALICE}\t1700000000"));
}

#[tokio::test]
async fn wg_set_adds_moves_and_removes() {
    if !is_root() {
        return;
    }
    let served = Served::start("b");
    let set = format!(
        "set TUNNEL peer {BOB} preshared-key /dev/stdin endpoint 192.0.2.7:51820 persistent-keepalive 25 \
         allowed-ips 10.8.0.2/32,fd00:8::3/128"
    );
    served.ok(&set, SERVER_KEY).await;
    assert_eq!(served.ok("show TUNNEL preshared-keys", "").await.lines().count(), 2);
    let text = served.ok("show TUNNEL allowed-ips", "").await;
    assert!(text.contains(&format!("{ALICE}\t(none)")), "the network moved: {text}");
    assert!(text.contains(&format!("{BOB}\t10.8.0.2/32 fd00:8::3/128")), "{text}");
    assert!(served.ok("show TUNNEL endpoints", "").await.contains("192.0.2.7:51820"));
    served.ok(&format!("set TUNNEL listen-port 4500 peer {ALICE} remove"), "").await;
    assert_eq!(served.ok("show TUNNEL peers", "").await.trim(), BOB);
    assert_eq!(served.ok("show TUNNEL listen-port", "").await.trim(), "4500");
    let changes = served.memory.changes.lock().unwrap();
    assert!(matches!(changes[0], PeerChange::Update { .. }), "{changes:?}");
    assert!(matches!(changes[1], PeerChange::Add { .. }), "{changes:?}");
    assert!(matches!(changes[2], PeerChange::Remove { .. }), "{changes:?}");
    assert_eq!(changes.len(), 3);
}

#[tokio::test]
async fn wg_syncconf_changes_only_what_is_different() {
    if !is_root() {
        return;
    }
    let served = Served::start("c");
    let mut conf = tempfile::NamedTempFile::new().unwrap();
    write!(
        conf,
        "[Interface]\nPrivateKey = {SERVER_KEY}\n[Peer]\nPublicKey = {ALICE}\nAllowedIPs = 10.8.0.2/32\n\
         [Peer]\nPublicKey = {BOB}\nAllowedIPs = 10.8.0.3/32\n"
    )
    .unwrap();
    served.ok(&format!("syncconf TUNNEL {}", conf.path().display()), "").await;
    assert_eq!(served.ok("show TUNNEL listen-port", "").await.trim(), "51820");
    {
        let changes = served.memory.changes.lock().unwrap();
        assert!(matches!(changes.as_slice(), [PeerChange::Add { .. }]), "alice was not touched: {changes:?}");
    }
    let only_bob = conf.reopen().unwrap();
    only_bob.set_len(0).unwrap();
    write!(&only_bob, "[Interface]\nPrivateKey = {SERVER_KEY}\n[Peer]\nPublicKey = {BOB}\nAllowedIPs = 10.8.0.3/32\n")
        .unwrap();
    served.ok(&format!("syncconf TUNNEL {}", conf.path().display()), "").await;
    assert_eq!(served.ok("show TUNNEL peers", "").await.trim(), BOB);
}

#[tokio::test]
async fn a_refused_request_changes_nothing() {
    if !is_root() {
        return;
    }
    let served = Served::start("d");
    let before = served.ok("show TUNNEL dump", "").await;
    let output = served.wg("set TUNNEL listen-port 4501 private-key /dev/stdin", "").await;
    assert!(!output.status.success());
    let path = socket_path(&served.tunnel);
    for request in ["set=1\nlisten_port=4502\nnonsense=1\n\n", "hello\n\n", "set=1\npublic_key=00\n\n"] {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.unwrap();
        assert_eq!(answer, format!("errno={}\n", libc::EINVAL), "{request:?}");
    }
    assert_eq!(served.ok("show TUNNEL dump", "").await, before);
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    if !is_root() {
        return;
    }
    let served = Served::start("e");
    let mut stream = BufReader::new(UnixStream::connect(socket_path(&served.tunnel)).await.unwrap());
    for _ in 0..3 {
        stream.write_all(b"get=1\n\n").await.unwrap();
        let mut line = String::new();
        while line != "errno=0\n" {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
        }
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line, "\n");
    }
}
