//! Asks for a page by HTTP/1.1 (RFC 9112) and looks at the status of the answer.

use std::mem::MaybeUninit;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{ProbeError, load};

/// Bytes of an answer's head at most.
const HEAD: usize = 16 << 10;
/// Header fields of an answer at most.
const FIELDS: usize = 128;

/// Sends the request and waits for the head of its answer, which lives with a status of the 200s and 300s. Gives the load
/// that the answer's header field of this name says, if one is asked for.
pub async fn get(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: SocketAddr,
    path: &str,
    load_field: Option<&str>,
) -> Result<Option<f64>, ProbeError> {
    let version = env!("CARGO_PKG_VERSION");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: jetway-health/{version}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = Vec::with_capacity(1024);
    loop {
        if head.len() >= HEAD || (&mut stream).take((HEAD - head.len()) as u64).read_buf(&mut head).await? == 0 {
            return Err(ProbeError::NotHttp);
        }
        // Interim answers (RFC 9110 section 15.2) come before the one that counts.
        while let Some(Head { status, length, load }) = parse(&head, load_field)? {
            match status {
                200..=399 => return Ok(load),
                100..=199 => head.drain(..length),
                _ => return Err(ProbeError::Status(status)),
            };
        }
    }
}

/// What a complete head says.
struct Head {
    status: u16,
    length: usize,
    load: Option<f64>,
}

/// Parses a head; `None` if there is more to come.
fn parse(head: &[u8], load_field: Option<&str>) -> Result<Option<Head>, ProbeError> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut response = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, head, &mut fields) {
        Ok(httparse::Status::Complete(length)) => {
            let named = |name: &str| response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
            let load = load_field.and_then(named).and_then(|field| load::in_field(field.value));
            Ok(response.code.map(|status| Head { status, length, load }))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(ProbeError::NotHttp),
    }
}
