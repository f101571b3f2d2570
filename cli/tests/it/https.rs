//! `send` to a server under TLS.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::{OneFile, SECRET, file, run_with};

/// Answers every request under TLS with 200. Returns its URL and the certificate that it shows.
fn server() -> (String, OneFile) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = file("authority.pem", &own.cert.pem());
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut reader = BufReader::new(StreamOwned::new(connection, stream.unwrap()));
            let mut head = String::new();
            // A client that does not trust the certificate leaves here.
            while reader.read_line(&mut head).is_ok_and(|count| count > 2) {}
            let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            let _ = reader.get_mut().write_all(reply);
            reader.get_mut().conn.send_close_notify();
            let _ = reader.get_mut().flush();
        }
    });
    let url = format!("https://localhost:{port}/callbacks/suno");
    (url, certificate)
}

fn send(arguments: &[&str]) -> (i32, String) {
    let mut all = vec!["send", "--retries", "0"];
    all.extend(arguments);
    let run = run_with(&all, &[("SUNO_WEBHOOK_KEY", SECRET)], "");
    (run.code, run.out + &run.err)
}

#[test]
fn a_server_under_tls_is_sent_to_if_its_authority_is_trusted() {
    let (url, authority) = server();
    let (code, text) = send(&["--ca", &authority.path, &url]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = send(&[&url]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("certificate"), "{text}");
}

#[test]
fn a_file_that_holds_no_authority_is_2_and_says_what_is_expected() {
    let empty = file("authority.pem", "nothing\n");
    let (code, text) = send(&["--ca", &empty.path, "https://localhost:1/"]);
    assert_eq!(code, 2);
    assert!(text.contains("-----BEGIN CERTIFICATE-----"), "{text}");
}
