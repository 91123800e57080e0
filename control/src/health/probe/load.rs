//! Reads how busy a server says it is.

/// The load in the value of a header field, from 0 to 1: `0.73`, or `73%`.
pub fn in_field(value: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let load = match text.strip_suffix('%') {
        Some(percent) => number(percent.trim_end())? / 100.0,
        None => number(text)?,
    };
    (0.0..=1.0).contains(&load).then_some(load)
}

/// The load in the line of an agent as HAProxy's `agent-check` reads it: words apart by spaces or commas, of which `27%`
/// is the share of its weight that the server can take. The other words are about life, which probes look after.
pub fn in_line(line: &[u8]) -> Option<f64> {
    let line = line.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let words = std::str::from_utf8(line).ok()?.split([' ', '\t', ',']);
    let free = words.filter_map(|word| word.strip_suffix('%')).find_map(number)?;
    // More than its weight is nothing that a server can be asked for.
    Some(1.0 - (free / 100.0).min(1.0))
}

/// Digits with at most one point: what `parse` takes besides, such as `inf`, is no load.
fn number(text: &str) -> Option<f64> {
    let is_plain =
        !text.is_empty() && text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_says_a_share_or_percent_and_anything_else_says_nothing() {
        for (text, load) in [("0.73", 0.73), ("73%", 0.73), (" 0 ", 0.0), ("1", 1.0), ("100 %", 1.0), (".5", 0.5)] {
            let read = in_field(text.as_bytes()).unwrap();
            assert!((read - load).abs() < 1e-9, "{text}: {read}");
        }
        for text in ["", "%", "1.01", "101%", "-0.1", "NaN", "inf", "1e-1", "0.5.5", "busy", "0.1234567890123456789"] {
            assert_eq!(in_field(text.as_bytes()), None, "{text}");
        }
        assert_eq!(in_field(b"\xff"), None);
    }

    #[test]
    fn an_agent_says_what_it_can_take() {
        for (line, load) in [
            (&b"27%\n"[..], 0.73),
            (b"up 75%\r\nrest 10%", 0.25),
            (b"ready,up,100%\n", 0.0),
            (b"250%", 0.0),
            (b"0%\n", 1.0),
        ] {
            let read = in_line(line).unwrap();
            assert!((read - load).abs() < 1e-9, "{}: {read}", line.escape_ascii());
        }
        for line in [&b""[..], b"\n", b"up\n", b"drain", b"%\n", b"\xff 5%", b"\n50%"] {
            assert_eq!(in_line(line), None, "{}", line.escape_ascii());
        }
    }
}
