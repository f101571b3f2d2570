//! docs/redis.md: what it prints for whoever has no Docker, and for who looks after Redis.

use std::fs;
use std::net::{SocketAddr, TcpStream};

use callback_guard_harness::page::{self, Block, Started};
use callback_guard_harness::{
    Reader, SECRET, SECRET_VARIABLE, Upstream, client, envoy_binary, fleet, places, upstream, wait,
    wasm,
};

use crate::deploy::support::{body, forged, genuine};

const PAGE: &str = "docs/redis.md";

fn unused() -> SocketAddr {
    upstream::unused_address().unwrap()
}

#[track_caller]
fn wait_for(what: &str, address: SocketAddr, server: &mut Started) {
    wait::wait_for(what, || {
        assert!(server.is_running(), "{what}: {}", server.log());
        TcpStream::connect(address).ok()
    })
    .unwrap();
}

/// The folder `deploy/redis`, where ports that are taken on this machine are others.
fn checkout(ports: &[(&str, SocketAddr)]) -> Reader {
    fleet::find_servers(&|_| {}).unwrap();
    let reader = Reader::new().unwrap();
    let folder = reader.folder().join("deploy/redis");
    fs::create_dir_all(&folder).unwrap();
    let module = wasm::module(&|_| {}).unwrap();
    for name in ["envoy.yaml", "users.acl", "webdis.json"] {
        let path = places::repository().join("deploy/redis").join(name);
        let mut text = fs::read_to_string(path).unwrap();
        for (printed, own) in ports {
            text = text.replace(printed, &own.port().to_string());
        }
        let text = text.replace("/etc/envoy/callback_guard.wasm", module.to_str().unwrap());
        fs::write(folder.join(name), text).unwrap();
    }
    reader
}

#[test]
fn the_store_is_started_without_docker() {
    let blocks = page::marked(PAGE, "the_store_is_started_without_docker").unwrap();
    let [redis, webdis, envoy]: [Block; 3] = blocks.try_into().unwrap();
    let application = Upstream::start().unwrap();
    let ports = [
        ("6379", unused()),
        ("7379", unused()),
        ("9901", unused()),
        ("10000", unused()),
        ("8080", application.address()),
    ];
    let binary = envoy_binary::find(&|_| {}).unwrap();
    let reader = checkout(&ports)
        .program("envoy", binary.path().expect("an Envoy that is a file"))
        .unwrap()
        .env(SECRET_VARIABLE, SECRET)
        .instead("--port 6379", &format!("--port {}", ports[0].1.port()));
    let mut redis = reader.start(&redis.text).unwrap();
    wait_for("Redis", ports[0].1, &mut redis);
    let mut webdis = reader.start(&webdis.text).unwrap();
    wait_for("Webdis", ports[1].1, &mut webdis);
    let mut envoy = reader.start(&envoy.text).unwrap();
    let callbacks = ports[3].1;
    wait_for("Envoy", callbacks, &mut envoy);

    let event = body("without-docker");
    let send = |request| client::send(callbacks, &request).unwrap();
    assert_eq!(send(forged(&event)).status, 401);
    assert_eq!(send(genuine(&event)).status, 200);
    assert_eq!(application.heads(), 1);
    // Redis has it, not only this Envoy: nothing fell back.
    let stats = client::send(
        ports[2].1,
        &callback_guard_harness::Request::get("/stats/prometheus"),
    );
    let stats = stats.unwrap().text();
    let fallbacks: Vec<_> = stats
        .lines()
        .filter(|line| line.starts_with("callback_guard_store_fallbacks_total"))
        .collect();
    assert!(!fallbacks.is_empty(), "{stats}");
    assert!(
        fallbacks
            .iter()
            .all(|line| line.contains("action=") && line.ends_with(" 0")),
        "{fallbacks:?}"
    );
}

#[test]
fn an_operator_sees_how_redis_is_and_no_key() {
    let blocks = page::marked(PAGE, "an_operator_sees_how_redis_is_and_no_key").unwrap();
    let [user, info]: [Block; 2] = blocks.try_into().unwrap();
    let address = unused();
    let reader = checkout(&[]);
    let acl = reader.folder().join("deploy/redis/users.acl");
    let users = fs::read_to_string(&acl).unwrap();
    fs::write(&acl, format!("{users}{}\n", user.text)).unwrap();
    let port = address.port().to_string();
    let reader = reader.instead("redis-cli ", &format!("redis-cli -p {port} "));
    let server = format!(
        "redis-server --aclfile deploy/redis/users.acl --bind 127.0.0.1 --port {port} --save ''"
    );
    let mut server = reader.start(&server).unwrap();
    wait_for("Redis", address, &mut server);

    let say = |script: &str| reader.run(script).unwrap().text;
    let said = say(&info.text);
    assert!(said.contains("\nredis_version:"), "{said}");
    for refused in ["keys '*'", "get callback-guard:a"] {
        let said = say(&info.text.replace("info", refused));
        assert!(said.contains("NOPERM"), "{refused}: {said}");
    }
    // So it is said why it needs another user.
    let said = say("REDISCLI_AUTH=change-me-redis redis-cli info");
    assert!(said.contains("NOPERM"), "{said}");
}
