//! The application behind the proxy: reads a request whole and answers 200, one thread a connection.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 21\r\n\r\n{\"status\":\"received\"}";

/// Serves until the process is ended.
pub(crate) fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).context("listening")?;
    for stream in listener.incoming().flatten() {
        thread::spawn(move || answer_all(stream));
    }
    Ok(())
}

fn answer_all(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; 64 * 1024];
    let mut used = 0;
    loop {
        let head_end = buffer.get(..used).and_then(find_head_end);
        let Some(head_end) = head_end else {
            match buffer.get_mut(used..).map(|free| stream.read(free)) {
                Some(Ok(count)) if count > 0 => used += count,
                _ => return,
            }
            continue;
        };
        let length = buffer.get(..head_end).map_or(0, content_length);
        let mut missing = (head_end + length).saturating_sub(used);
        // No pipelining: what follows the head is its body.
        while missing > 0 {
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => missing = missing.saturating_sub(count),
                _ => return,
            }
        }
        used = 0;
        if stream.write_all(ANSWER).is_err() {
            return;
        }
    }
}

fn find_head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}

fn content_length(head: &[u8]) -> usize {
    head.split(|byte| *byte == b'\n')
        .filter_map(|line| line.split_at_checked(15))
        .find(|(name, _)| name.eq_ignore_ascii_case(b"content-length:"))
        .and_then(|(_, value)| std::str::from_utf8(value).ok()?.trim().parse().ok())
        .unwrap_or(0)
}
