//! The bindings are what Envoy's header says, and a real Envoy has every function of them.

use std::collections::BTreeMap;
use std::fs;

use callback_guard_harness::{envoy_binary, places};
use callback_guard_support::elf;

#[path = "../../../native/src/abi.rs"]
#[allow(dead_code, reason = "the tables alone are looked at")]
mod bindings;

/// What the header says, by name.
#[derive(Default)]
struct Header {
    callbacks: BTreeMap<String, Vec<String>>,
    hooks: BTreeMap<String, Vec<String>>,
    enums: BTreeMap<String, Vec<String>>,
    structs: BTreeMap<String, Vec<String>>,
}

fn header() -> Header {
    let path = places::repository().join("native/tests/data/abi.tsv");
    let text = fs::read_to_string(path).unwrap();
    let mut header = Header::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split('\t').map(str::to_owned);
        let kind = words.next().unwrap();
        let mut first = words.next().unwrap();
        let function = matches!(kind.as_str(), "callback" | "hook");
        if function {
            first = words.next().unwrap();
        }
        let rest: Vec<_> = words.collect();
        let old = match kind.as_str() {
            "callback" | "hook" => {
                let mut signature = vec![line.split('\t').nth(1).unwrap().to_owned()];
                signature.extend(rest);
                let map = if kind == "hook" {
                    &mut header.hooks
                } else {
                    &mut header.callbacks
                };
                map.insert(format!("envoy_dynamic_module_{first}"), signature)
            }
            "enum" => header.enums.insert(first, rest),
            "struct" => header.structs.insert(first, rest),
            kind => panic!("{kind}"),
        };
        assert_eq!(old, None, "{line}");
    }
    header
}

/// The functions of Envoy that are bound.
pub fn callbacks() -> Vec<&'static str> {
    bindings::CALLBACKS.iter().map(|one| one.name).collect()
}

/// The bindings' names of the header's types.
const TYPES: &[(&str, &str)] = &[
    ("void", "()"),
    ("bool", "bool"),
    ("size_t", "usize"),
    ("size_t*", "*mut usize"),
    ("uint32_t", "u32"),
    ("uint64_t", "u64"),
    ("uint64_t*", "*mut u64"),
    ("const char*", "*const u8"),
    ("type_abi_version_module_ptr", "AbiVersion"),
    ("type_module_buffer", "ModuleBuffer"),
    ("type_module_buffer*", "*mut ModuleBuffer"),
    ("type_envoy_buffer", "EnvoyBuffer"),
    ("type_envoy_buffer*", "*mut EnvoyBuffer"),
    ("const type_envoy_buffer*", "*const EnvoyBuffer"),
    ("type_module_http_header", "ModuleHeader"),
    ("type_module_http_header*", "*mut ModuleHeader"),
    ("type_envoy_http_header", "EnvoyHeader"),
    ("type_envoy_http_header*", "*mut EnvoyHeader"),
    ("type_http_filter_config_envoy_ptr", "EnvoyConfig"),
    ("type_http_filter_config_module_ptr", "ModuleConfig"),
    ("type_http_filter_envoy_ptr", "EnvoyFilter"),
    ("type_http_filter_module_ptr", "ModuleFilter"),
    ("type_http_filter_scheduler_module_ptr", "FilterScheduler"),
    (
        "type_http_filter_config_scheduler_module_ptr",
        "ConfigScheduler",
    ),
    ("type_log_level", "LogLevel"),
    ("type_http_header_type", "HeaderType"),
    ("type_http_body_type", "BodyType"),
    ("type_metrics_result", "MetricsResult"),
    ("type_http_callout_init_result", "CalloutInit"),
    ("type_http_callout_result", "CalloutResult"),
    ("type_http_stream_reset_reason", "StreamResetReason"),
    ("type_attribute_id", "Attribute"),
    (
        "type_on_http_filter_request_headers_status",
        "RequestHeadersStatus",
    ),
    (
        "type_on_http_filter_request_body_status",
        "RequestBodyStatus",
    ),
    (
        "type_on_http_filter_request_trailers_status",
        "RequestTrailersStatus",
    ),
    (
        "type_on_http_filter_response_headers_status",
        "ResponseHeadersStatus",
    ),
    (
        "type_on_http_filter_response_body_status",
        "ResponseBodyStatus",
    ),
    (
        "type_on_http_filter_response_trailers_status",
        "ResponseTrailersStatus",
    ),
];

fn bound(header: &str) -> &'static str {
    let known = TYPES.iter().find(|(name, _)| *name == header);
    known.unwrap_or_else(|| panic!("no type for {header}")).1
}

#[track_caller]
fn assert_same(bindings: &[bindings::Signature], header: &BTreeMap<String, Vec<String>>) {
    let declared: BTreeMap<_, _> = bindings
        .iter()
        .map(|function| {
            let mut signature = vec![function.result];
            signature.extend(function.parameters);
            let plain = |name: &str| name.replace("* ", "*"); // As the compiler spells pointers.
            let signature: Vec<_> = signature.into_iter().map(plain).collect();
            (function.name.to_owned(), signature)
        })
        .collect();
    let expected: BTreeMap<_, Vec<_>> = header
        .iter()
        .map(|(name, types)| {
            (
                name.clone(),
                types.iter().map(|one| bound(one).to_owned()).collect(),
            )
        })
        .collect();
    assert_eq!(declared, expected);
}

#[test]
fn functions_are_declared_as_in_the_header() {
    let header = header();
    assert_same(bindings::CALLBACKS, &header.callbacks);
    assert_same(bindings::HOOKS, &header.hooks);
}

#[test]
fn values_of_enums_are_those_of_the_header() {
    let header = header();
    assert_eq!(bindings::ENUMS.len(), header.enums.len());
    for (name, values) in bindings::ENUMS {
        let of_header = TYPES.iter().find(|(_, bound)| bound == name).unwrap().0;
        let order = &header.enums[of_header];
        for (value, number) in *values {
            let position = order.iter().position(|known| known == value).unwrap();
            assert_eq!(position, *number as usize, "{name}::{value}");
        }
    }
}

/// All members are pointers and sizes, so that a struct has no holes.
#[test]
fn structs_are_as_large_as_in_the_header() {
    let header = header();
    let sizes = [
        ("type_module_buffer", size_of::<bindings::ModuleBuffer>()),
        ("type_envoy_buffer", size_of::<bindings::EnvoyBuffer>()),
        (
            "type_module_http_header",
            size_of::<bindings::ModuleHeader>(),
        ),
        ("type_envoy_http_header", size_of::<bindings::EnvoyHeader>()),
    ];
    assert_eq!(sizes.len(), header.structs.len());
    for (name, size) in sizes {
        let members = &header.structs[name];
        assert_eq!(size, members.len() * size_of::<usize>(), "{name}");
    }
}

/// One that is missing would be found by the loader alone, when a user starts Envoy.
#[test]
fn a_real_envoy_has_every_function() {
    let binary = envoy_binary::find(&|line| println!("{line}")).unwrap();
    let Some(path) = binary.path() else {
        println!("NOT CHECKED: Envoy runs in a container");
        return;
    };
    let bytes = fs::read(path).unwrap();
    let exported = elf::exported(&bytes);
    for function in bindings::CALLBACKS {
        assert!(exported.contains(function.name), "{}", function.name);
    }
    // Envoy looks the module's functions up by these names.
    for function in bindings::HOOKS {
        let name = function.name.as_bytes();
        assert!(
            bytes.windows(name.len()).any(|window| window == name),
            "{}",
            function.name
        );
    }
}
