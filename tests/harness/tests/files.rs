//! `envoy.yaml`, `compose.yaml` and `Dockerfile` fit together, and fit what the harness runs.
//!
//! No docker is needed: the compose file is parsed strictly, into the few keys that it uses.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)] // In the functions that the tests share.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use callback_guard_harness::{Filter, Render, Setup, envoy_binary, places, render};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compose {
    #[serde(rename = "x-defaults")]
    _defaults: yaml_serde::Value,
    services: BTreeMap<String, Service>,
    networks: BTreeMap<String, Network>,
    volumes: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    ipam: Ipam,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ipam {
    config: Vec<BTreeMap<String, String>>,
}

/// `docker compose` refuses unknown keys, too.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    build: Option<String>,
    cap_drop: Vec<String>,
    #[serde(rename = "command")]
    _command: Option<Vec<String>>,
    #[serde(default)]
    depends_on: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, Option<String>>,
    #[serde(rename = "healthcheck")]
    _healthcheck: Option<Value>,
    image: String,
    #[serde(rename = "logging")]
    _logging: Value,
    #[serde(rename = "mem_limit")]
    _mem_limit: Option<String>,
    #[serde(default)]
    networks: BTreeMap<String, Value>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    profiles: Vec<String>,
    read_only: bool,
    restart: String,
    #[serde(rename = "security_opt")]
    _security_opt: Vec<String>,
    stop_grace_period: Option<String>,
    #[serde(rename = "user")]
    _user: Option<String>,
    #[serde(default)]
    volumes: Vec<String>,
}

fn read(name: &str) -> String {
    let path = places::repository().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn compose() -> Compose {
    let mut document: yaml_serde::Value = yaml_serde::from_str(&read("compose.yaml")).unwrap();
    document.apply_merge().unwrap();
    document.apply_merge().unwrap(); // what was merged may merge something itself
    yaml_serde::from_value(document).unwrap()
}

fn envoy() -> Value {
    Render::repository().document().unwrap().clone()
}

fn plugin(envoy: &Value) -> &Value {
    let pointer = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config";
    envoy.pointer(pointer).unwrap()
}

fn strings(list: &Value) -> BTreeSet<String> {
    let items = list.as_array().unwrap().iter();
    items
        .map(|item| item.as_str().unwrap().to_owned())
        .collect()
}

/// Instructions of the Dockerfile, with continued lines joined.
fn instructions() -> Vec<Vec<String>> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .filter(|words: &Vec<_>| !words.is_empty())
        .collect()
}

#[test]
fn every_image_is_pinned() {
    let compose = compose();
    let built = &compose.services["envoy"];
    assert_eq!(built.build.as_deref(), Some("."));
    assert_eq!(
        built.image, "callback-guard:latest",
        "built here, not pulled"
    );
    let pulled = compose
        .services
        .values()
        .filter(|service| service.build.is_none())
        .map(|service| service.image.clone());
    let stages: Vec<_> = instructions()
        .into_iter()
        .filter(|words| words[0] == "FROM")
        .collect();
    let is_stage = |name: &String| stages.iter().any(|words| words.get(3) == Some(name));
    let from = stages
        .iter()
        .map(|words| words[1].clone())
        .filter(|name| !is_stage(name));
    for image in pulled.chain(from) {
        let (_, tag) = image.rsplit_once(':').expect("a tag");
        assert!(
            tag.starts_with(|c: char| c.is_ascii_digit() || c == 'v'),
            "{image}"
        );
    }
}

#[test]
fn the_dockerfile_builds_what_the_harness_builds() {
    let text = read("Dockerfile");
    let image = format!("FROM envoyproxy/envoy:v{}\n", envoy_binary::VERSION);
    assert!(text.contains(&image), "{image}");

    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("channel = \""));
    let rust = format!("FROM rust:{}-", channel.unwrap().trim_end_matches('"'));
    assert!(text.contains(&rust), "{rust}");

    let build = instructions()
        .into_iter()
        .find(|words| words[0] == "RUN" && words.iter().any(|word| word == "deploy/module.sh"));
    assert!(build.is_some(), "{text}");
}

#[test]
fn the_dockerfile_copies_files_that_exist_and_are_sent() {
    let ignore = read(".dockerignore");
    let mut copied = BTreeSet::new();
    for words in instructions().iter().filter(|words| words[0] == "COPY") {
        let sources = words[1..words.len() - 1].iter();
        let from_stage = words.iter().any(|word| word.starts_with("--from="));
        for source in sources.filter(|word| !from_stage && !word.starts_with("--")) {
            assert!(places::repository().join(source).exists(), "{source}");
            assert!(
                ignore.lines().any(|line| line == format!("!{source}")),
                "{source}"
            );
            copied.insert(source.clone());
        }
    }
    // Cargo wants every member and every named target of the workspace, built or not.
    let context = tempfile::tempdir().unwrap();
    for source in copied {
        let link = context.path().join(&source);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(places::repository().join(&source), link).unwrap();
    }
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--no-deps", "--format-version", "1"])
        .current_dir(context.path())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");

    let module = plugin(&envoy())["vm_config"]["code"]["local"]["filename"].clone();
    let target = |name: &str| {
        instructions()
            .iter()
            .any(|words| words.last().unwrap() == name)
    };
    assert!(target(module.as_str().unwrap()), "{module}");
    assert!(target("/etc/envoy/envoy.yaml"));
    assert!(target("/etc/envoy/envoy-native.yaml"));
    assert!(target("/etc/envoy/libcallback_guard.so"));
}

/// So that all builds of the native module and of the programs give the same bytes.
#[test]
fn every_build_takes_the_same_zig() {
    let packages = |name: &str| {
        let text = read(name);
        text.split(|letter: char| letter.is_whitespace() || "`;".contains(letter))
            .filter(|word| word.starts_with("cargo-zigbuild==") || word.starts_with("ziglang=="))
            .map(|word| word.trim_end_matches('.').to_owned())
            .collect::<BTreeSet<_>>()
    };
    let expected = packages("deploy/native.sh");
    assert_eq!(expected.len(), 2, "{expected:?}");
    for name in [
        "Dockerfile",
        "deploy/program.sh",
        "docs/native.md",
        ".github/workflows/release.yml",
    ] {
        assert_eq!(packages(name), expected, "{name}");
    }
    let command = read("Dockerfile");
    assert!(command.contains(r#"CMD ["envoy", "-c", "/etc/envoy/envoy.yaml""#));
}

#[test]
fn compose_connects_what_envoy_yaml_names() {
    let compose = compose();
    let envoy = envoy();
    let service = &compose.services["envoy"];

    // Every variable that the guard reads is passed on, and it reads no other.
    let passed: BTreeSet<_> = service.environment.keys().cloned().collect();
    let plugin = plugin(&envoy);
    let read = strings(&plugin["vm_config"]["environment_variables"]["host_env_keys"]);
    assert_eq!(passed, read);
    let guard = plugin["configuration"]["value"].as_str().unwrap();
    let guard: Value = serde_json::from_str(guard).unwrap();
    let secrets = guard["sources"][0]["secrets"].as_array().unwrap();
    let named = secrets
        .iter()
        .map(|secret| secret["env"].as_str().unwrap().to_owned());
    assert_eq!(named.collect::<BTreeSet<_>>(), read);
    // Each is passed on as it is: one without a value is absent, not empty, and the guard names it.
    for variable in &read {
        assert_eq!(service.environment[variable], None, "{variable}");
    }

    // The listener is published, admin is neither published nor reachable.
    let socket = "/static_resources/listeners/0/address/socket_address";
    let listener = envoy.pointer(socket).unwrap();
    assert_eq!(listener["address"], "0.0.0.0");
    let port = &listener["port_value"];
    assert_eq!(service.ports, [format!("{port}:{port}")]);
    assert_eq!(
        envoy["admin"]["address"]["socket_address"]["address"],
        "127.0.0.1"
    );

    // Docker kills after ten seconds, unless told otherwise.
    assert_eq!(service.stop_grace_period.as_deref(), Some("40s"));

    // The cluster's host is a service, on the port that it listens on.
    let endpoint = "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
    let endpoint = envoy.pointer(endpoint).unwrap();
    let app = endpoint["address"].as_str().unwrap();
    assert!(service.depends_on.iter().any(|name| name == app));
    let port = endpoint["port_value"].to_string();
    assert_eq!(
        compose.services[app].environment["HTTP_PORT"].as_deref(),
        Some(port.as_str())
    );
    assert!(
        compose.services[app].ports.is_empty(),
        "it is reached through the guard only"
    );

    for service in compose.services.values() {
        assert_eq!(service.restart, "unless-stopped");
        assert!(service.read_only);
        assert_eq!(service.cap_drop, ["ALL"]);
        for volume in &service.volumes {
            let (source, _) = volume.split_once(':').unwrap();
            if compose.volumes.contains_key(source) {
                continue;
            }
            let source: PathBuf = places::repository().join(source);
            assert!(source.exists(), "{}", source.display());
        }
    }
}

/// With the profile, Envoy reaches the inbox by the name that `envoy.yaml` has for the application,
/// and the inbox the application.
#[test]
fn compose_puts_the_inbox_between_envoy_and_the_application() {
    let compose = compose();
    let [envoy, inbox] = ["envoy-inbox", "inbox"].map(|name| &compose.services[name]);
    for service in [envoy, inbox] {
        assert_eq!(service.profiles, ["inbox"]);
    }
    let aliases = |service: &Service, network: &str| strings(&service.networks[network]["aliases"]);
    assert_eq!(envoy.networks.keys().collect::<Vec<_>>(), ["front"]);
    assert!(aliases(inbox, "front").contains("app"));
    assert!(aliases(&compose.services["app"], "default").contains("application"));
    let variable = |name: &str| {
        let value = &inbox.environment[&format!("CALLBACK_GUARD_INBOX_{name}")];
        value.clone().unwrap()
    };
    assert_eq!(variable("TO"), "http://application:8080");
    let address = inbox.networks["front"]["ipv4_address"].as_str().unwrap();
    assert_eq!(variable("LISTEN"), format!("{address}:8080"));
    assert_eq!(variable("STORE"), "sqlite:/data/inbox.db");
    assert_eq!(inbox.volumes, ["inbox:/data"]);
    assert!(
        inbox.ports.is_empty(),
        "callbacks come through the guard only"
    );
}

/// Docker goes round its pools: after a dozen networks, one that it chose lies over a fixed one there.
#[test]
fn fixed_networks_lie_outside_of_what_docker_gives_away() {
    let compose = compose();
    let networks = compose.networks.values();
    let subnets: Vec<_> = networks
        .flat_map(|network| &network.ipam.config)
        .map(|pool| &pool["subnet"])
        .collect();
    assert_eq!(subnets.len(), 1);
    for subnet in subnets {
        let (address, _) = subnet.split_once('/').unwrap();
        let address: Ipv4Addr = address.parse().unwrap();
        let [first, second, ..] = address.octets();
        assert!(address.is_private(), "{subnet} is not a private network");
        let pool = (first == 172 && (16..32).contains(&second)) || (first == 192 && second == 168);
        assert!(!pool, "{subnet} lies in Docker's default address pools");
    }
}

/// What `envoy.yaml` says belongs together does.
#[test]
fn limits_fit_together() {
    let envoy = envoy();
    let listener = &envoy["static_resources"]["listeners"][0];
    let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    let route = &manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"];
    let seconds = |value: &Value| -> f64 {
        let text = value.as_str().unwrap().strip_suffix('s').unwrap();
        text.parse().unwrap()
    };
    // The guard's defaults, as envoy.yaml sets none of them.
    let (max_body_bytes, lease, wait) = (1_048_576, 30.0, 10.0);

    let buffer = listener["per_connection_buffer_limit_bytes"]
        .as_u64()
        .unwrap();
    let window = &manager["http2_protocol_options"]["initial_stream_window_size"];
    assert!(buffer > max_body_bytes);
    assert_eq!(window.as_u64(), Some(buffer));
    assert!(seconds(&route["timeout"]) < lease);
    assert!(wait + seconds(&route["timeout"]) < seconds(&manager["stream_idle_timeout"]));
    assert_eq!(route["retry_policy"], Value::Null);

    let plugin = plugin(&envoy);
    assert_eq!(plugin["allow_on_headers_stop_iteration"], true);
    assert_eq!(plugin["failure_policy"], "FAIL_RELOAD");
    assert_eq!(plugin["name"], "callback-guard");
    assert_eq!(plugin["vm_config"]["vm_id"], "callback-guard");
}

#[test]
fn envoy_accepts_the_file_with_nothing_deprecated_in_it() {
    let output = Setup::new().without_guard().validate().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    for line in log.lines() {
        assert!(
            !line.contains("[warning]") && !line.contains("eprecated"),
            "{line}"
        );
    }
}

/// The native build has no copy of `envoy.yaml` that is kept by hand.
#[test]
fn envoy_native_yaml_is_made_from_envoy_yaml() {
    let made = render::envoy_native_yaml().unwrap();
    let same = Render::yaml(&made).document().unwrap().clone();
    let native = Render::repository().filter(Filter::Native);
    assert_eq!(same, native.translated().unwrap());

    let path = places::repository().join("envoy-native.yaml");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    assert!(
        read("envoy-native.yaml") == made,
        "run: BLESS=1 cargo test -p callback-guard-harness --test files"
    );
}
