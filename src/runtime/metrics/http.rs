//! As much of HTTP as whoever asks for figures needs: one request, one answer, and the connection is closed.
//!
//! Sans-io: bytes come in through [`Request::push`], which says what is asked once it knows.

/// A request's line and headers have to fit this; what a program that collects figures sends is a tenth of it.
pub const REQUEST_BYTES_MAX: usize = 4096;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The figures.
    Metrics,
    /// The checksums of the databases.
    Checksums,
    /// Nothing that there is: the status that says so.
    Refused(&'static str),
}

/// A request that is coming in.
#[derive(Debug, Default)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// More bytes; what is asked, once that is known. Call it no more then.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Asked> {
        let room = REQUEST_BYTES_MAX - self.bytes.len().min(REQUEST_BYTES_MAX);
        let fits = bytes.len() <= room;
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let ended = contains(&self.bytes, b"\r\n\r\n") || contains(&self.bytes, b"\n\n");
        match (ended, fits) {
            (true, _) => Some(read(&self.bytes)),
            (false, true) => None,
            (false, false) => Some(Asked::Refused("431 Request Header Fields Too Large")),
        }
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn read(bytes: &[u8]) -> Asked {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let (method, target, version) = (words.next(), words.next(), words.next());
    if version.is_none_or(|version| !version.starts_with(b"HTTP/1.")) || words.next().is_some() {
        return Asked::Refused("400 Bad Request");
    }
    if method != Some(b"GET") {
        return Asked::Refused("405 Method Not Allowed");
    }
    match target.and_then(|target| target.split(|byte| *byte == b'?').next()) {
        Some(b"/" | b"/metrics") => Asked::Metrics,
        Some(b"/checksums") => Asked::Checksums,
        _ => Asked::Refused("404 Not Found"),
    }
}

/// An answer: head and body.
#[must_use]
pub fn answer(status: &str, body: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.0 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::{Asked, REQUEST_BYTES_MAX, Request, answer};
    use crate::base::Prng;

    fn asked(text: &str) -> Option<Asked> {
        Request::default().push(text.as_bytes())
    }

    #[test]
    fn what_collectors_send_is_understood() {
        assert_eq!(asked("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), Some(Asked::Metrics));
        assert_eq!(asked("GET /metrics?a=b HTTP/1.0\n\n"), Some(Asked::Metrics));
        assert_eq!(asked("GET / HTTP/1.1\r\n\r\n"), Some(Asked::Metrics));
        assert_eq!(asked("GET /checksums HTTP/1.1\r\n\r\n"), Some(Asked::Checksums));
        assert_eq!(asked("GET /metrics HTTP/1.1\r\nHost: x\r\n"), None);
    }

    #[test]
    fn anything_else_is_refused() {
        for (text, status) in [
            ("GET /x HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            ("GET /metrics\r\n\r\n", "400 Bad Request"),
            ("GET /metrics SPDY/3\r\n\r\n", "400 Bad Request"),
            ("GET /metrics HTTP/1.1 x\r\n\r\n", "400 Bad Request"),
            ("\n\n", "400 Bad Request"),
            ("\r\n\r\n", "400 Bad Request"),
        ] {
            assert_eq!(asked(text), Some(Asked::Refused(status)), "for {text:?}");
        }
    }

    #[test]
    fn bytes_may_come_one_by_one_and_too_many_are_refused_and_not_kept() {
        let mut request = Request::default();
        let text = b"GET /metrics HTTP/1.1\r\n\r\n";
        let found: Vec<_> = text.iter().map(|byte| request.push(&[*byte])).collect();
        assert_eq!(found.iter().filter(|asked| asked.is_some()).count(), 1);
        assert_eq!(*found.last().unwrap(), Some(Asked::Metrics));

        let mut request = Request::default();
        assert_eq!(request.push(&[b'a'; REQUEST_BYTES_MAX]), None);
        assert!(matches!(request.push(&[b'a'; 1 << 20]), Some(Asked::Refused(_))));
        assert_eq!(request.bytes.len(), REQUEST_BYTES_MAX);
    }

    #[test]
    fn any_bytes_are_refused_or_waited_for() {
        let mut prng = Prng::new(7);
        for _ in 0..2000 {
            let mut request = Request::default();
            for _ in 0..40 {
                let len = usize::try_from(prng.next_u64() % 300).unwrap();
                let bytes: Vec<u8> =
                    (0..len).map(|_| b"GET /\r\n HTP1.\0\xff"[(prng.next_u64() % 15) as usize]).collect();
                if request.push(&bytes).is_some() {
                    break;
                }
                assert!(request.bytes.len() <= REQUEST_BYTES_MAX);
            }
        }
    }

    #[test]
    fn an_answer_tells_its_length() {
        let text = String::from_utf8(answer("200 OK", "abc\n")).unwrap();
        assert!(text.starts_with("HTTP/1.0 200 OK\r\n"), "{text}");
        assert!(text.ends_with("Content-Length: 4\r\nConnection: close\r\n\r\nabc\n"), "{text}");
    }
}
