//! The built module in an interpreter. What one request costs it, counted and not timed: the calls
//! that the host gets and the instructions that it runs, which both repeat exactly. And that it reads
//! bodies as the same code does on the host, where it is tested: the module looks at them with other
//! instructions.

use std::collections::{BTreeSet, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use callback_guard_core::scheme::keys::{Algorithm, SigningKey};
use callback_guard_core::testkit::{self, Request};
use callback_guard_core::time::UnixMillis;
use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use wasmi::{
    Caller, CompilationMode, Config, Engine, ExternType, Instance, Linker, Memory, Module, Store,
    Val,
};

#[path = "../../src/header_map.rs"]
#[allow(dead_code)] // what is only read is not written here
mod header_map;

const NOW: &str = "1769670760";
const KEY: &str = "test-webhook-hmac-key";
const OK: i32 = 0;
const NOT_FOUND: i32 = 1;

const INFO: i32 = 2;
const WARN: i32 = 3;

fn configuration() -> String {
    format!(
        r#"{{"log":{{"refusals_per_second":1000}},"sources":[{{"name":"suno","match":{{"path":"/callbacks/suno"}},"preset":"suno","secrets":[{{"value":"{KEY}"}}]}}]}}"#
    )
}

/// What the host of the filter knows.
#[derive(Default)]
struct Host {
    /// How often the time was asked for.
    asked: u64,
    calls: Vec<String>,
    configuration: Vec<u8>,
    headers: Vec<u8>,
    body: Vec<u8>,
    shared: HashMap<Vec<u8>, Vec<u8>>,
    status: u64,
    log_level: i32,
    log: Vec<String>,
}

struct Filter {
    store: Store<Host>,
    instance: Instance,
}

/// What one request came to.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    calls: Vec<String>,
    instructions: u64,
}

fn memory(caller: &Caller<'_, Host>) -> Memory {
    caller.get_export("memory").unwrap().into_memory().unwrap()
}

fn read(caller: &Caller<'_, Host>, at: i32, size: i32) -> Vec<u8> {
    let (at, size) = (at as usize, size as usize);
    memory(caller).data(caller)[at..at + size].to_vec()
}

fn write(caller: &mut Caller<'_, Host>, at: i32, bytes: &[u8]) {
    memory(caller).write(caller, at as usize, bytes).unwrap();
}

/// Hands `bytes` over in memory that the filter allocates for them, as a proxy does.
fn give(caller: &mut Caller<'_, Host>, bytes: &[u8], data: i32, size: i32) {
    let allocate = caller
        .get_export("proxy_on_memory_allocate")
        .unwrap()
        .into_func()
        .unwrap();
    let mut at = [Val::I32(0)];
    allocate
        .call(&mut *caller, &[Val::I32(bytes.len() as i32)], &mut at)
        .unwrap();
    let at = at[0].i32().unwrap();
    write(caller, at, bytes);
    write(caller, data, &at.to_le_bytes());
    write(caller, size, &(bytes.len() as i32).to_le_bytes());
}

/// One call of the filter to the host; the answer is a status.
fn serve(caller: &mut Caller<'_, Host>, name: &str, args: &[Val]) -> i32 {
    let arg = |index: usize| args[index].i32().unwrap();
    let noted = match name {
        "proxy_get_property" | "proxy_set_property" => {
            let path = read(caller, arg(0), arg(1));
            format!(
                "{name} {}",
                String::from_utf8(path).unwrap().replace('\0', ".")
            )
        }
        "proxy_add_header_map_value" | "proxy_replace_header_map_value" => {
            let header = read(caller, arg(1), arg(2));
            format!("{name} {}", String::from_utf8(header).unwrap())
        }
        _ => name.to_owned(),
    };
    caller.data_mut().calls.push(noted);
    match name {
        "proxy_get_current_time_nanoseconds" => {
            // A fifth of a second from one question to the next, so that no second has too many lines.
            let host = caller.data_mut();
            host.asked = (host.asked + 1) % 1_000;
            let nanos = NOW.parse::<u64>().unwrap() * 1_000_000_000 + host.asked * 200_000_000;
            write(caller, arg(0), &nanos.to_le_bytes());
        }
        "proxy_get_log_level" => {
            let level = caller.data().log_level;
            write(caller, arg(0), &level.to_le_bytes());
        }
        "proxy_log" => {
            let line = String::from_utf8(read(caller, arg(1), arg(2))).unwrap();
            caller.data_mut().log.push(line);
        }
        "proxy_get_buffer_bytes" => {
            let bytes = match arg(0) {
                7 => caller.data().configuration.clone(),
                _ => caller.data().body.clone(),
            };
            give(caller, &bytes, arg(3), arg(4));
        }
        "proxy_get_header_map_pairs" => {
            let bytes = caller.data().headers.clone();
            give(caller, &bytes, arg(1), arg(2));
        }
        "proxy_get_property" => {
            let path = read(caller, arg(0), arg(1));
            let status = caller.data().status;
            match path.as_slice() {
                b"response\0code_details" => give(caller, b"via_upstream", arg(2), arg(3)),
                b"response\0code" => give(caller, &status.to_le_bytes(), arg(2), arg(3)),
                _ => return NOT_FOUND,
            }
        }
        "proxy_get_shared_data" => {
            let key = read(caller, arg(0), arg(1));
            let Some(value) = caller.data().shared.get(&key).cloned() else {
                return NOT_FOUND;
            };
            give(caller, &value, arg(2), arg(3));
            write(caller, arg(4), &1_i32.to_le_bytes());
        }
        "proxy_set_shared_data" => {
            let key = read(caller, arg(0), arg(1));
            let value = read(caller, arg(2), arg(3));
            caller.data_mut().shared.insert(key, value);
        }
        _ => {}
    }
    OK
}

impl Filter {
    fn start() -> Self {
        let path = callback_guard_harness::wasm::module(&|_| {}).unwrap();
        let mut config = Config::default();
        config.consume_fuel(true);
        // Else the translation of a function is counted with its first use.
        config.compilation_mode(CompilationMode::Eager);
        let engine = Engine::new(&config);
        let module = Module::new(&engine, std::fs::read(path).unwrap()).unwrap();
        let mut linker = Linker::<Host>::new(&engine);
        for import in module.imports() {
            let ExternType::Func(kind) = import.ty() else {
                panic!("{import:?}")
            };
            let name = import.name().to_owned();
            let serve = move |mut caller: Caller<'_, Host>, args: &[Val], results: &mut [Val]| {
                let status = if name.starts_with("proxy_") {
                    serve(&mut caller, &name, args)
                } else {
                    OK
                };
                if let [result] = results {
                    *result = Val::I32(status);
                }
                Ok(())
            };
            linker
                .func_new(import.module(), import.name(), kind.clone(), serve)
                .unwrap();
        }
        let host = Host {
            configuration: configuration().into(),
            status: 200,
            log_level: WARN,
            ..Host::default()
        };
        let mut store = Store::new(&engine, host);
        store.set_fuel(u64::MAX / 2).unwrap();
        let instance = linker.instantiate_and_start(&mut store, &module).unwrap();
        let mut filter = Self { store, instance };
        filter.call("_initialize", &[]);
        filter.call("proxy_on_context_create", &[1, 0]);
        filter.call("proxy_on_vm_start", &[1, 0]);
        let size = filter.store.data().configuration.len();
        assert_eq!(filter.call("proxy_on_configure", &[1, size as i32]), 1);
        filter
    }

    fn call(&mut self, name: &str, args: &[i32]) -> i32 {
        let function = self.instance.get_func(&self.store, name).unwrap();
        let args: Vec<Val> = args.iter().map(|arg| Val::I32(*arg)).collect();
        let kind = function.ty(&self.store);
        let mut results = vec![Val::I32(0); kind.results().len()];
        function.call(&mut self.store, &args, &mut results).unwrap();
        results.first().map_or(0, |result| result.i32().unwrap())
    }

    /// A whole request of one event, from its head to its log entry.
    fn request(&mut self, context: i32, id: &str, signing_key: &str) -> Cost {
        self.send(context, id, Some(signing_key), "")
    }

    /// The same with tracks in its body; without a key it is not signed.
    fn send(&mut self, context: i32, id: &str, signing_key: Option<&str>, tracks: &str) -> Cost {
        let body = format!(
            r#"{{"code":200,"msg":"All generated successfully.","data":{{"callbackType":"complete","task_id":"{id}","data":[{tracks}]}}}}"#
        );
        let key = signing_key.unwrap_or(KEY).as_bytes();
        let key = SigningKey::secret(Algorithm::HmacSha256, key).unwrap();
        let mac = key.sign(&[id.as_bytes(), b".", NOW.as_bytes()]).unwrap();
        let signature = STANDARD.encode(mac.as_slice());
        let length = body.len().to_string();
        let mut headers = vec![
            (":authority", "hooks.example.com"),
            (":path", "/callbacks/suno"),
            (":method", "POST"),
            (":scheme", "http"),
            ("user-agent", "bench"),
            ("content-type", "application/json"),
            ("x-webhook-timestamp", NOW),
            ("x-webhook-signature", &signature),
            ("content-length", &length),
            ("x-forwarded-proto", "http"),
            ("x-request-id", "0f8ea1c2-3f3a-4c53-9a39-0f4d3f8a2b11"),
        ];
        if signing_key.is_none() {
            headers.retain(|(name, _)| !name.starts_with("x-webhook-"));
        }
        let fuel = self.store.get_fuel().unwrap();
        self.store.data_mut().calls.clear();
        self.receive(context, &headers, body.into_bytes());
        self.call("proxy_on_response_headers", &[context, 4, 0]);
        self.call("proxy_on_response_body", &[context, 21, 1]);
        self.end(context);
        let instructions = fuel - self.store.get_fuel().unwrap();
        let calls = std::mem::take(&mut self.store.data_mut().calls);
        Cost {
            calls,
            instructions,
        }
    }
}

impl Filter {
    /// Head and body of a request.
    fn receive(&mut self, context: i32, headers: &[(&str, &str)], body: Vec<u8>) {
        let size = body.len() as i32;
        let host = self.store.data_mut();
        host.headers = header_map::encode(headers);
        host.body = body;
        self.call("proxy_on_context_create", &[context, 1]);
        self.call(
            "proxy_on_request_headers",
            &[context, headers.len() as i32, 0],
        );
        self.call("proxy_on_request_body", &[context, size, 0]);
        self.call("proxy_on_request_body", &[context, size, 1]);
    }

    fn end(&mut self, context: i32) {
        self.call("proxy_on_done", &[context]);
        self.call("proxy_on_log", &[context]);
        self.call("proxy_on_delete", &[context]);
    }

    /// Why a request with this body is refused, as the log has it.
    fn refusal(&mut self, context: i32, headers: &[(&str, &str)], body: &[u8]) -> String {
        self.store.data_mut().log.clear();
        self.receive(context, headers, body.to_vec());
        self.end(context);
        let [line] = self.store.data().log.as_slice() else {
            panic!("{:?}", self.store.data().log)
        };
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["detail"].as_str().unwrap().to_owned()
    }
}

/// The first request asks for the salt as well; it is not what is counted.
fn warm() -> Filter {
    let mut filter = Filter::start();
    filter.request(2, "00000000000000000000000000000000", KEY);
    filter
}

/// Tracks as Suno sends them, of at least so many bytes.
fn tracks(bytes: usize) -> String {
    let track = r#"{"id":"8551662c-73b8-4d54-9a39-0f4d3f8a2b11","audio_url":"https://cdn.example.com/8551662c.mp3","prompt":"[Verse] Night city lights shining bright","model_name":"chirp-v3-5","title":"Iron Man","tags":"electrifying, rock","duration":198.44}"#;
    vec![track; bytes.div_ceil(track.len() + 1)].join(",")
}

/// What each kind of request costs: for docs/benchmarks, and beside another build of the module
/// (`CALLBACK_GUARD_WASM=old.wasm`).
#[test]
fn each_kind_of_request_costs_the_same_each_time() {
    const ID: &str = "ee9c2715375b7837f8bb51d641ff5863";
    const OTHER: &str = "0f8ea1c23f3a4c539a390f4d3f8a2b11";
    let measure = || {
        let mut costs = Vec::new();
        for (size, tracks) in [("130 B", String::new()), ("64 KiB", tracks(64 << 10))] {
            let mut filter = warm();
            let mut count = |kind, id, key| {
                let cost = filter.send(costs.len() as i32 + 3, id, key, &tracks);
                costs.push((format!("{kind}, {size}"), cost));
            };
            count("new", ID, Some(KEY));
            count("duplicate", ID, Some(KEY));
            count("forged", OTHER, Some("another key"));
            count("unsigned", OTHER, None);
        }
        costs
    };
    let costs = measure();
    for (what, cost) in &costs {
        let calls = cost.calls.len();
        println!(
            "{what}: {} instructions, {calls} host calls",
            cost.instructions
        );
    }
    assert_eq!(costs, measure());
}

/// Which, and how often; in what order is promised only where it matters.
#[test]
fn a_new_event_takes_these_calls_and_no_other() {
    let mut calls = warm()
        .request(3, "ee9c2715375b7837f8bb51d641ff5863", KEY)
        .calls;
    let position = |name: &str| {
        calls
            .iter()
            .position(|call| call.starts_with(name))
            .unwrap()
    };
    let claimed = position("proxy_set_shared_data");
    let told = position("proxy_add_header_map_value");
    assert!(claimed < told, "nothing is forwarded before it is claimed");
    calls.sort();
    assert_eq!(
        calls,
        [
            // Headers added for the upstream.
            "proxy_add_header_map_value x-callback-guard-id",
            "proxy_add_header_map_value x-callback-guard-key",
            "proxy_add_header_map_value x-callback-guard-source",
            "proxy_get_buffer_bytes",
            // Head, body, and the response that settles the claim.
            "proxy_get_current_time_nanoseconds",
            "proxy_get_current_time_nanoseconds",
            "proxy_get_current_time_nanoseconds",
            "proxy_get_header_map_pairs",
            // The upstream's answer.
            "proxy_get_property response.code",
            "proxy_get_property response.code_details",
            // The claim, and its end.
            "proxy_get_shared_data",
            "proxy_get_shared_data",
            // Claims twice, delivered events, the outcome, the verdict.
            "proxy_increment_metric",
            "proxy_increment_metric",
            "proxy_increment_metric",
            "proxy_increment_metric",
            "proxy_increment_metric",
            // The body's length, and how long its head was held.
            "proxy_record_metric",
            "proxy_record_metric",
            "proxy_set_property callback_guard.verdict",
            "proxy_set_shared_data",
            "proxy_set_shared_data",
        ]
    );
}

#[test]
fn a_forged_request_never_asks_the_store() {
    let cost = warm().request(3, "ee9c2715375b7837f8bb51d641ff5863", "another key");
    let asked = cost.calls.iter().any(|call| call.contains("shared_data"));
    assert!(!asked, "{:#?}", cost.calls);
    assert!(cost.calls.contains(&"proxy_send_local_response".to_owned()));
}

/// Fuel is one per instruction, more for calls and copies: a number that says nothing about time by
/// itself, and everything about a change.
#[test]
fn the_instructions_of_a_request_stay_within_their_budget() {
    let new = warm().request(3, "ee9c2715375b7837f8bb51d641ff5863", KEY);
    assert_eq!(
        new,
        warm().request(3, "ee9c2715375b7837f8bb51d641ff5863", KEY),
        "the count repeats"
    );
    let forged = warm().request(3, "ee9c2715375b7837f8bb51d641ff5863", "another key");
    println!("new: {}, forged: {}", new.instructions, forged.instructions);
    assert!(new.instructions <= 154_000, "new: {}", new.instructions);
    assert!(
        forged.instructions <= 142_000,
        "forged: {}",
        forged.instructions
    );
}

/// Bodies that are refused, at the latest for their signature: those of the tests and of the fuzzer,
/// and changes of each.
fn bodies() -> Vec<Vec<u8>> {
    let root = callback_guard_harness::places::repository();
    let mut bodies = Vec::new();
    for folder in [
        "tests/data/json-test-suite/test_parsing",
        "tests/data/samples",
        "fuzz/corpus/json",
    ] {
        let mut files: Vec<_> = std::fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(files.len() > 10, "{folder}");
        bodies.extend(files.iter().map(|file| std::fs::read(file).unwrap()));
    }
    // Not too long for an interpreter, and the filter does not see an empty one.
    bodies.retain(|body| (1..8_000).contains(&body.len()));
    let put: &[&[u8]] = &[
        b"",
        b"\"",
        b"\\",
        b"\x1f",
        b"\x80",
        "\u{20ac}".as_bytes(),
        b"{",
        b"}",
        b"[",
        b",",
        b":",
        b" ",
        b"\n",
        b"0",
        b"-",
        b"\\ud83d\\ude00",
        b"                 ",
        b"aaaaaaaaaaaaaaaa",
    ];
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for at in 0..bodies.len() {
        let mut body = bodies[at].clone();
        for _ in 0..random.random_range(1..4) {
            let place = random.random_range(0..=body.len());
            let end = (place + random.random_range(0..2)).min(body.len());
            body.splice(
                place..end,
                put[random.random_range(0..put.len())].iter().copied(),
            );
        }
        bodies.push([b"{\"v\":", bodies[at].as_slice(), b"}"].concat());
        if !body.is_empty() {
            bodies.push(body);
        }
    }
    bodies
}

#[test]
fn the_module_reads_bodies_as_the_host_does() {
    let headers = [
        (":authority", "hooks.example.com"),
        (":path", "/callbacks/suno"),
        (":method", "POST"),
        ("content-type", "application/json"),
        ("x-webhook-timestamp", NOW),
        (
            "x-webhook-signature",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ),
    ];
    let now = UnixMillis::new(NOW.parse::<u64>().unwrap() * 1000);
    let mut host = testkit::Host::new(callback_guard_config::testkit::policy(&configuration()));
    let mut filter = warm();
    filter.store.data_mut().log_level = INFO;
    let mut seen = BTreeSet::new();
    for (body, context) in bodies().iter().zip(3..) {
        let text = |text: &str| text.as_bytes().to_vec();
        let request = Request {
            headers: headers
                .map(|(name, value)| (text(name), text(value)))
                .into(),
            body: body.clone(),
        };
        let (stream, _) = host.send(&request, now);
        let rejection = host.report(stream).rejection.as_ref();
        let rejection = rejection.expect("nothing here is signed");
        seen.insert(rejection.code().as_str());
        assert_eq!(
            filter.refusal(context, &headers, body),
            rejection.to_string(),
            "{}",
            body.escape_ascii()
        );
    }
    assert!(
        seen.is_superset(&BTreeSet::from([
            "json_duplicate_key",
            "json_malformed",
            "json_too_deep",
            "signature_mismatch",
        ])),
        "{seen:?}"
    );
}
