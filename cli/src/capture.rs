//! A captured request: raw HTTP, an entry of a HAR file, or what `curl -v` printed.

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use callback_guard_core::time::UnixMillis;
use serde_json::Value;

use crate::time;

/// A request as it was captured.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    /// What kind of text it was read from.
    pub(crate) form: &'static str,
    /// Names in lower case and values, pseudo-headers included, as Envoy hands them to the filter.
    pub(crate) headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body; `None` if the capture has none.
    pub(crate) body: Option<Vec<u8>>,
    /// When it was received, if the capture says so.
    pub(crate) received: Option<UnixMillis>,
    /// What is odd about the capture.
    pub(crate) notes: Vec<String>,
}

impl Capture {
    /// Reads a capture of any of the three forms.
    ///
    /// # Errors
    ///
    /// It is none of them.
    pub(crate) fn parse(bytes: &[u8], entry: Option<usize>) -> anyhow::Result<Self> {
        if bytes.trim_ascii_start().starts_with(b"{") {
            return har(bytes, entry);
        }
        if lines(bytes).any(|line| line.starts_with(b"> ")) {
            return curl(bytes);
        }
        raw(bytes)
    }

    /// The value of a header that came once.
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        let mut values = self
            .headers
            .iter()
            .filter(|(given, _)| given == name.as_bytes());
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        let name = name.trim_ascii().to_ascii_lowercase();
        let name = if name == b"host" {
            b":authority".to_vec()
        } else {
            name
        };
        let is_pseudo = name.starts_with(b":");
        if is_pseudo {
            self.headers.retain(|(given, _)| *given != name);
        }
        self.headers.push((name, value.trim_ascii().to_vec()));
    }

    fn request_line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let mut words = line.split(|byte| *byte == b' ');
        let (method, target) = (words.next(), words.next());
        let (Some(method), Some(target)) = (method, target) else {
            bail!("the first line is no request line, expected `POST /path HTTP/1.1`");
        };
        let is_method = !method.is_empty() && method.iter().all(u8::is_ascii_uppercase);
        if !is_method
            || !words
                .next()
                .is_none_or(|version| version.starts_with(b"HTTP/"))
        {
            bail!("the first line is no request line, expected `POST /path HTTP/1.1`");
        }
        self.push(b":method", method);
        self.target(target);
        Ok(())
    }

    /// A path, or an absolute URL.
    fn target(&mut self, target: &[u8]) {
        let text = String::from_utf8_lossy(target);
        match text.split_once("://") {
            Some((_, rest)) if !text.starts_with('/') => {
                let at = rest.find(['/', '?']).unwrap_or(rest.len());
                let (authority, path) = rest.split_at_checked(at).unwrap_or((rest, ""));
                self.push(b":authority", authority.as_bytes());
                let path = path.split('#').next().unwrap_or_default();
                let slash = if path.starts_with('/') { "" } else { "/" };
                self.push(b":path", format!("{slash}{path}").as_bytes());
            }
            _ => self.push(b":path", target),
        }
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Raw HTTP/1.1: request line, headers, an empty line, the body.
fn raw(bytes: &[u8]) -> anyhow::Result<Capture> {
    let mut capture = Capture {
        form: "raw HTTP",
        ..Capture::default()
    };
    let mut rest = bytes;
    let mut is_first = true;
    loop {
        let (line, after, is_last) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let (line, after) = rest.split_at_checked(end).unwrap_or_default();
                (line, after.get(1..).unwrap_or_default(), false)
            }
            None => (rest, &b""[..], true),
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        rest = after;
        if is_first {
            capture.request_line(line)?;
            is_first = false;
        } else if line.is_empty() {
            break;
        } else {
            header_line(&mut capture, line)?;
        }
        if is_last {
            break;
        }
    }
    let chunked = capture
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"));
    let body = match dechunked(rest).filter(|_| chunked) {
        Some(body) => body,
        None => measured(&mut capture, rest).to_vec(),
    };
    if !rest.is_empty() {
        capture.body = Some(body);
    }
    capture.received = date(&capture, "date");
    Ok(capture)
}

fn header_line(capture: &mut Capture, line: &[u8]) -> anyhow::Result<()> {
    // HTTP/2 pseudo-headers begin with a colon.
    let start = usize::from(line.starts_with(b":"));
    let colon = line.iter().skip(start).position(|byte| *byte == b':');
    let colon = colon.map(|at| at.saturating_add(start));
    let Some((name, value)) = colon.and_then(|at| line.split_at_checked(at)) else {
        let line = String::from_utf8_lossy(line);
        bail!("`{line}` is no header line, expected `name: value`");
    };
    capture.push(name, value.get(1..).unwrap_or_default());
    Ok(())
}

/// As much of the body as the head declares; what an editor adds at the end is not part of it.
fn measured<'b>(capture: &mut Capture, body: &'b [u8]) -> &'b [u8] {
    let declared = capture
        .header("content-length")
        .and_then(|value| std::str::from_utf8(value).ok())
        .and_then(|value| value.parse::<usize>().ok());
    let Some(declared) = declared.filter(|declared| *declared != body.len()) else {
        return body;
    };
    if let Some((inside, after)) = body.split_at_checked(declared)
        && after.iter().all(u8::is_ascii_whitespace)
    {
        return inside;
    }
    capture.notes.push(format!(
        "content-length is {declared}, but the captured body has {} bytes: it is not what was sent",
        body.len()
    ));
    body
}

fn dechunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let size = std::str::from_utf8(rest.get(..end)?).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        rest = rest.get(end.checked_add(2)?..)?;
        if size == 0 {
            return Some(body);
        }
        let (chunk, after) = rest.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        rest = after.strip_prefix(b"\r\n")?;
    }
}

/// The lines that `curl -v` begins with `> `. It does not print the body.
fn curl(bytes: &[u8]) -> anyhow::Result<Capture> {
    let mut capture = Capture {
        form: "curl -v",
        ..Capture::default()
    };
    let mut is_inside = false;
    let mut requests: u32 = 0;
    let mut answered = Capture::default();
    for line in lines(bytes) {
        if let Some(line) = line.strip_prefix(b"> ").or(line.strip_prefix(b">")) {
            if line.is_empty() {
                is_inside = false;
            } else if is_inside {
                header_line(&mut capture, line)?;
            } else {
                capture.headers.clear();
                capture.request_line(line)?;
                requests = requests.saturating_add(1);
                is_inside = true;
            }
        } else if let Some(line) = line.strip_prefix(b"< ") {
            // The status line and broken lines are of no interest.
            let _ = header_line(&mut answered, line);
        }
    }
    if requests > 1 {
        let note = format!("{requests} requests are in the capture; this is the last");
        capture.notes.push(note);
    }
    capture.received = date(&answered, "date");
    Ok(capture)
}

fn date(capture: &Capture, name: &str) -> Option<UnixMillis> {
    time::http_date(std::str::from_utf8(capture.header(name)?).ok()?)
}

/// A HAR file, or one entry of it.
///
/// Source: HTTP Archive 1.2.
fn har(bytes: &[u8], entry: Option<usize>) -> anyhow::Result<Capture> {
    let root: Value = serde_json::from_slice(bytes).context("not a HAR file")?;
    let mut notes = Vec::new();
    let found = match root.pointer("/log/entries").and_then(Value::as_array) {
        None => &root,
        Some(entries) => {
            let is_post = |entry: &&Value| {
                entry.pointer("/request/method").and_then(Value::as_str) == Some("POST")
            };
            let posts = entries.iter().filter(is_post).count();
            if posts > 1 && entry.is_none() {
                notes.push(format!(
                    "{posts} POST requests are in the capture; this is the last (--entry takes another)"
                ));
            }
            let found = match entry {
                Some(index) => entries.get(index),
                None => entries.iter().rfind(is_post),
            };
            found.context("the HAR file has no such entry")?
        }
    };
    let request = found
        .get("request")
        .context("neither a HAR file nor an entry of one: there is no `request`")?;
    let text = |value: &Value, name: &str| Some(value.get(name)?.as_str()?.to_owned());
    let mut capture = Capture {
        form: "HAR",
        notes,
        ..Capture::default()
    };
    let method = text(request, "method").context("`request` has no `method`")?;
    let url = text(request, "url").context("`request` has no `url`")?;
    capture.push(b":method", method.as_bytes());
    capture.target(url.as_bytes());
    let headers = request.get("headers").and_then(Value::as_array);
    for header in headers.into_iter().flatten() {
        if let (Some(name), Some(value)) = (text(header, "name"), text(header, "value")) {
            capture.push(name.as_bytes(), value.as_bytes());
        }
    }
    if let Some(data) = request.get("postData") {
        let body = text(data, "text").unwrap_or_default().into_bytes();
        let encoding = text(data, "encoding").or_else(|| text(data, "_encoding"));
        capture.body = Some(match encoding.as_deref() {
            Some("base64") => STANDARD.decode(&body).context("postData.text")?,
            _ => body,
        });
    }
    let started = text(found, "startedDateTime");
    capture.received = started.and_then(|started| time::timestamp(&started));
    Ok(capture)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parse(text: &str) -> Capture {
        Capture::parse(text.as_bytes(), None).unwrap()
    }

    fn text(bytes: Option<&[u8]>) -> Option<&str> {
        bytes.map(|bytes| std::str::from_utf8(bytes).unwrap())
    }

    #[test]
    fn raw_requests_end_their_lines_either_way() {
        for end in ["\n", "\r\n"] {
            let capture = parse(
                &[
                    "POST /a?b HTTP/1.1",
                    "Host: h:1",
                    "X-A:  b ",
                    "Content-Length: 2",
                    "",
                    "{}\n",
                ]
                .join(end),
            );
            assert_eq!(text(capture.header(":path")), Some("/a?b"));
            assert_eq!(text(capture.header(":authority")), Some("h:1"));
            assert_eq!(text(capture.header("x-a")), Some("b"));
            assert_eq!(capture.body.as_deref(), Some(&b"{}"[..]));
            assert_eq!(capture.notes, [""; 0]);
        }
    }

    #[test]
    fn a_body_of_another_length_is_noted() {
        let capture = parse("POST / HTTP/1.1\nContent-Length: 9\n\n{}");
        assert_eq!(capture.notes.len(), 1);
        assert_eq!(capture.body.as_deref(), Some(&b"{}"[..]));
    }

    #[test]
    fn chunks_are_joined() {
        let capture = parse(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n",
        );
        assert_eq!(capture.body.as_deref(), Some(&b"{}"[..]));
    }

    #[test]
    fn curl_prints_no_body() {
        let capture = parse(
            "*   Trying 127.0.0.1\n> POST /a HTTP/2\r\n> Host: h\r\n> X-A: b\r\n> \r\n* sent\n< HTTP/2 401 \n< date: Thu, 29 Jan 2026 07:12:40 GMT\n< \n",
        );
        assert_eq!(capture.form, "curl -v");
        assert_eq!(text(capture.header(":path")), Some("/a"));
        assert_eq!(text(capture.header("x-a")), Some("b"));
        assert_eq!(capture.body, None);
        assert_eq!(
            capture.received,
            Some(UnixMillis::from_seconds(1_769_670_760))
        );
    }

    #[test]
    fn an_entry_of_a_har_file_has_its_time() {
        let entry = r#"{"startedDateTime":"2026-01-29T08:12:40.5+01:00","request":{"method":"POST",
            "url":"https://h.example/a?b#c","headers":[{"name":"X-A","value":"b"}],
            "postData":{"mimeType":"application/json","text":"e30=","encoding":"base64"}}}"#;
        let whole =
            format!(r#"{{"log":{{"entries":[{{"request":{{"method":"GET"}}}},{entry}]}}}}"#);
        for form in [entry, &whole] {
            let capture = parse(form);
            assert_eq!(text(capture.header(":authority")), Some("h.example"));
            assert_eq!(text(capture.header(":path")), Some("/a?b"));
            assert_eq!(capture.body.as_deref(), Some(&b"{}"[..]));
            assert_eq!(capture.received, Some(UnixMillis::new(1_769_670_760_500)));
        }
    }

    #[test]
    fn what_is_no_capture_says_so() {
        for wrong in ["", "hello", "{}", "GET", "POST / HTTP/1.1\nno colon\n\n"] {
            assert!(Capture::parse(wrong.as_bytes(), None).is_err(), "{wrong:?}");
        }
    }
}
