use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Child, Command, Stdio};

use jetway_config::Secret;
use jetway_pipelines::wireguard::cookie::{CookieChecker, CookieSecrets};
use jetway_pipelines::wireguard::kdf::Secret as KeySecret;
use jetway_pipelines::wireguard::message::Initiation;
use jetway_pipelines::wireguard::noise::Opened;
use jetway_pipelines::wireguard::x25519::KeyPair;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;
use crate::kernel::namespace::{in_namespace, ip};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const TIMEOUT: Duration = Duration::from_secs(2);
const SHORT: Duration = Duration::from_millis(100);

async fn ask(address: IpAddr, port: u16, question: Question, timeout: Duration) -> Result<(), ProbeError> {
    let prober = Prober::open().unwrap();
    let Answer { took, load } = prober.ask(&Target { address, port, question, load: None }, timeout).await?;
    assert_eq!(load, None);
    assert!(took < timeout + Duration::from_millis(500), "{took:?}");
    Ok(())
}

fn http(path: &str) -> Question {
    Question::Http { path: path.into() }
}

/// Answers the next connection with `answer`, and gives back what was asked.
async fn http_server(address: IpAddr, answer: &'static [u8]) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        // In pieces, as the network may deliver it; a prober that has seen enough goes away.
        for piece in answer.chunks(7) {
            if stream.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        String::from_utf8(request[..length].to_vec()).unwrap()
    });
    (port, server)
}

/// A port on which nobody listens.
fn closed_port(address: IpAddr) -> u16 {
    std::net::TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_listening_server_lives_and_a_closed_port_is_refused_at_once() {
    for address in [V4, V6] {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(ask(address, port, Question::Tcp, TIMEOUT).await, Ok(()));
        let begun = Instant::now();
        let error = ask(address, closed_port(address), Question::Tcp, TIMEOUT).await.unwrap_err();
        assert_eq!(error.to_string(), "connection refused");
        assert!(begun.elapsed() < TIMEOUT / 2);
    }
}

#[tokio::test]
async fn a_page_of_the_200s_or_300s_is_life_and_other_answers_are_not() {
    let cases: [(&[u8], Result<(), ProbeError>); 8] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(())),
        (b"HTTP/1.0 204 No Content\r\n\r\n", Ok(())),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", Ok(())),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(())),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", Err(ProbeError::Status(404))),
        (b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\r\n", Err(ProbeError::Status(503))),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Err(ProbeError::NotHttp)),
        (b"", Err(ProbeError::NotHttp)),
    ];
    for (answer, expected) in cases {
        let (port, server) = http_server(V4, answer).await;
        assert_eq!(ask(V4, port, http("/health?deep=1"), TIMEOUT).await, expected, "{}", answer.escape_ascii());
        let request = server.await.unwrap();
        assert!(request.starts_with("GET /health?deep=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nHost: 127.0.0.1:{port}\r\n")), "{request}");
    }
    let (port, _server) = http_server(V6, b"HTTP/1.1 200 OK\r\n\r\n").await;
    assert_eq!(ask(V6, port, http("/"), TIMEOUT).await, Ok(()));
}

#[tokio::test]
async fn a_server_may_say_how_busy_it_is_in_its_answer_or_through_an_agent() {
    let prober = Prober::open().unwrap();
    let header = Some(LoadQuestion::Header("x-load".into()));
    for (answer, load) in [
        (&b"HTTP/1.1 200 OK\r\nServer: x\r\nX-Load: 0.25\r\n\r\n"[..], Some(0.25)),
        (b"HTTP/1.1 103 Early Hints\r\nX-Load: 1\r\n\r\nHTTP/1.1 204 No Content\r\nX-LOAD: 75 %\r\n\r\n", Some(0.75)),
        (b"HTTP/1.1 200 OK\r\nX-Load: busy\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\n\r\n", None),
    ] {
        let (port, _server) = http_server(V4, answer).await;
        let target = Target { address: V4, port, question: http("/"), load: header.clone() };
        assert_eq!(prober.ask(&target, TIMEOUT).await.unwrap().load, load, "{}", answer.escape_ascii());
    }
    let living = TcpListener::bind((V4, 0)).await.unwrap();
    let agent = TcpListener::bind((V4, 0)).await.unwrap();
    let (port, agent_port) = (living.local_addr().unwrap().port(), agent.local_addr().unwrap().port());
    tokio::spawn(async move {
        // The line comes in pieces, and the connection stays open behind it.
        let (mut stream, _) = agent.accept().await.unwrap();
        stream.write_all(b"up 4").await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(b"0%\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let target =
        |port, agent| Target { address: V4, port, question: Question::Tcp, load: Some(LoadQuestion::Agent(agent)) };
    let load = prober.ask(&target(port, agent_port), TIMEOUT).await.unwrap().load.unwrap();
    assert!((load - 0.6).abs() < 1e-9, "{load}");
    // An agent that is gone says nothing about the server.
    assert_eq!(prober.ask(&target(port, closed_port(V4)), TIMEOUT).await.unwrap().load, None);
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_has_failed_when_its_time_is_over() {
    let listener = TcpListener::bind((V4, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = ask(V4, port, http("/"), SHORT).await.unwrap_err();
    assert_eq!(error, ProbeError::Timeout(SHORT));
    // Nor does an endless head fill the node's memory.
    let endless: &'static [u8] = Box::leak([b"HTTP/1.1 200 OK\r\n".to_vec(), vec![b'a'; 40_000]].concat().into());
    let (port, _server) = http_server(V4, endless).await;
    assert_eq!(ask(V4, port, http("/"), TIMEOUT).await, Err(ProbeError::NotHttp));
}

#[tokio::test]
async fn a_datagram_fails_only_where_nobody_listens() {
    for address in [V4, V6] {
        let socket = UdpSocket::bind((address, 0)).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(ask(address, port, Question::Udp, SHORT).await, Ok(()), "silence");
        let closed = UdpSocket::bind((address, 0)).await.unwrap().local_addr().unwrap().port();
        let error = ask(address, closed, Question::Udp, TIMEOUT).await.unwrap_err();
        assert_eq!(error.to_string(), "connection refused");
    }
}

#[test]
fn hosts_that_answer_echoes_live_and_others_do_not() {
    in_namespace(|| async {
        ip("tuntap add dev quiet mode tap");
        ip("link set quiet up");
        ip("addr add 192.0.2.1/24 dev quiet");
        let prober = Arc::new(Prober::open().unwrap());
        let target = |address| Target { address, port: 0, question: Question::Icmp, load: None };
        let (v4, v6) = (target(V4), target(V6));
        // Many at once share the sockets, which have room for all that is answered before the first reply is read.
        let asked = (0..2_000).map(|n| prober.ask(if n % 2 == 0 { &v4 } else { &v6 }, TIMEOUT));
        let answers = futures::future::join_all(asked).await;
        let failed: Vec<_> = answers.iter().filter(|answer| answer.is_err()).collect();
        assert!(failed.is_empty(), "{}: {:?}", failed.len(), failed.first());
        let nobody = target("192.0.2.77".parse().unwrap());
        assert_eq!(prober.ask(&nobody, SHORT).await, Err(ProbeError::Timeout(SHORT)));
        let elsewhere = target("203.0.113.1".parse().unwrap());
        let error = prober.ask(&elsewhere, SHORT).await.unwrap_err();
        assert_eq!(error.to_string(), "network is unreachable");
    });
}

/// `openssl s_server`, whose certificate nobody knows.
struct StockTls {
    child: Child,
    _folder: tempfile::TempDir,
    port: u16,
}

impl StockTls {
    fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "cert", "-days", "1"])
            .args(["-subj", "/CN=somebody.example"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = closed_port(V4);
        let child = Command::new("openssl")
            .args([
                "s_server",
                "-www",
                "-quiet",
                "-key",
                "key",
                "-cert",
                "cert",
                "-accept",
                &format!("127.0.0.1:{port}"),
            ])
            .args(options)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, _folder: folder, port };
        let listens = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            std::net::TcpStream::connect((V4, port)).is_ok()
        });
        assert!(listens, "openssl s_server does not listen");
        server
    }
}

impl Drop for StockTls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn https_is_asked_whoever_signed_the_certificate_and_plain_http_is_not_https() {
    let https = || Question::Https { path: "/".into() };
    for options in [&["-tls1_3"][..], &["-tls1_2"]] {
        let server = StockTls::start(options);
        assert_eq!(ask(V4, server.port, https(), TIMEOUT).await, Ok(()), "{options:?}");
    }
    let (port, _server) = http_server(V4, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let error = ask(V4, port, https(), TIMEOUT).await.unwrap_err();
    assert!(matches!(error, ProbeError::Tls(_)), "{error:?}");
}

fn secret(byte: u8) -> Secret {
    Secret::take(&mut [byte; 32])
}

/// What a gateway does with an initiation.
#[derive(Clone, Copy, PartialEq)]
enum Gateway {
    Responds,
    RespondsToAnotherFirst,
    WantsCookies,
}

/// A gateway with the private key of 2s that knows the peer whose private key is of 1s.
async fn gateway(behaviour: Gateway) -> u16 {
    let socket = UdpSocket::bind((V4, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let keys = KeyPair::new(&[2; 32]);
        let peer = *KeyPair::new(&[1; 32]).public();
        let secrets = Arc::new(CookieSecrets::new(KeySecret::new([8; 32]), KeySecret::new([9; 32])));
        let checker = CookieChecker::new(keys.public(), secrets);
        let mut newest = None;
        let mut buffer = [0; 256];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let message = &buffer[..length];
            assert!(checker.has_valid_mac1(message));
            if behaviour == Gateway::WantsCookies && !checker.has_valid_mac2(message, from) {
                let reply = checker.reply(message, from, &[7; 24]).unwrap();
                socket.send_to(&reply, from).await.unwrap();
                continue;
            }
            let opened = Opened::open(&keys, &Initiation::parse(message).unwrap()).unwrap();
            let claimed = opened.remote;
            let Ok(authentic) = opened.authenticate(&keys.agree(&claimed).unwrap()) else { continue };
            if claimed != peer {
                continue;
            }
            // As any gateway does against replays.
            assert!(newest < Some(authentic.timestamp));
            newest = Some(authentic.timestamp);
            let (_, body) = authentic.respond(&[0; 32], 77, &KeySecret::new([5; 32])).unwrap();
            let mut response = [&body[..], &[0; 32]].concat();
            if behaviour == Gateway::RespondsToAnotherFirst {
                response[8] ^= 1;
                socket.send_to(&response, from).await.unwrap();
                response[8] ^= 1;
                response[40] ^= 1;
                socket.send_to(&response, from).await.unwrap();
                response[40] ^= 1;
            }
            socket.send_to(&response, from).await.unwrap();
        }
    });
    port
}

fn handshake(private: u8, gateway: u8) -> Question {
    let gateway = PublicKey(*KeyPair::new(&[gateway; 32]).public());
    Question::WireGuard(Arc::new(Handshake::new(&secret(private), &gateway).unwrap()))
}

#[tokio::test]
async fn a_gateway_that_completes_the_handshake_lives() {
    for behaviour in [Gateway::Responds, Gateway::RespondsToAnotherFirst, Gateway::WantsCookies] {
        let port = gateway(behaviour).await;
        let question = handshake(1, 2);
        // Again and again, also faster than the timestamps' steps.
        for _ in 0..5 {
            assert_eq!(ask(V4, port, question.clone(), TIMEOUT).await, Ok(()));
        }
    }
}

#[tokio::test]
async fn nobody_answers_a_prober_that_is_no_peer_and_no_other_can_answer_for_the_gateway() {
    let port = gateway(Gateway::Responds).await;
    assert_eq!(ask(V4, port, handshake(3, 2), SHORT).await, Err(ProbeError::Timeout(SHORT)));
    // An echo server answers everything with the same, and is no gateway.
    let echo = UdpSocket::bind((V4, 0)).await.unwrap();
    let port = echo.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 256];
        while let Ok((length, from)) = echo.recv_from(&mut buffer).await {
            echo.send_to(&buffer[..length], from).await.unwrap();
        }
    });
    assert_eq!(ask(V4, port, handshake(1, 2), SHORT).await, Err(ProbeError::Timeout(SHORT)));
    assert_eq!(ask(V4, closed_port(V4), handshake(1, 2), TIMEOUT).await.unwrap_err().to_string(), "connection refused");
}

#[test]
fn a_handshake_prints_no_key() {
    let text = format!("{:?}", Target { address: V4, port: 1, question: handshake(1, 2), load: None });
    assert!(text.ends_with("question: WireGuard(Handshake(..)), load: None }"), "{text}");
}
