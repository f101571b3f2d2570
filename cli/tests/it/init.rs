//! `init`: whatever it prints, `check` calls it ok.

use serde_json::Value;

use crate::support::{repository, run, run_with};

fn presets() -> Vec<String> {
    let list = run(&["init", "--list"]);
    assert_eq!((list.code, list.err.as_str()), (0, ""));
    list.out
        .lines()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_preset_makes_a_block_for_each_platform_that_check_calls_ok() {
    let others = ["--envoy", "--istio", "--gateway"];
    for (number, preset) in presets().into_iter().enumerate() {
        // The block of a platform holds the same configuration for all presets: each gets one in turn.
        for platform in ["--json", others[number % others.len()]] {
            let block = run(&["init", "--preset", &preset, platform]);
            assert_eq!((block.code, block.err.as_str()), (0, ""), "{preset}");
            // Whose sender signs the URL needs an exact path, which Istio's block is warned of.
            let signs_url = ["hubspot", "mandrill", "trello", "twilio"].contains(&preset.as_str());
            let mut arguments = vec!["check", "--assume-env", "-"];
            if !signs_url || platform != "--istio" {
                arguments.push("--strict");
            }
            let check = run_with(&arguments, &[], &block.out);
            assert_eq!(check.code, 0, "{preset} {platform}: {}", check.err);
            assert!(
                check.out.contains(&format!("preset {preset}, enforce")),
                "{}",
                check.out
            );
            let own = ["SUNO_WEBHOOK", "suno-webhook", "/callbacks/suno"];
            let is_own = ["suno", "kie"].contains(&preset.as_str()) || preset.contains("suno");
            assert!(
                is_own || own.iter().all(|own| !block.out.contains(own)),
                "{}",
                block.out
            );
        }
    }
}

#[test]
fn the_list_has_every_name_of_the_table() {
    let path = repository().join("config/src/presets.json");
    let table: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let names: Vec<String> = table
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|entry| entry["names"].as_array().unwrap())
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(presets(), names);
}

#[test]
fn the_block_of_suno_is_that_of_envoy_yaml() {
    let block = run(&["init", "--preset", "suno"]).out;
    let envoy = std::fs::read_to_string(repository().join("envoy.yaml")).unwrap();
    let filter = block.split_once("before every other filter:\n").unwrap().1;
    let mut rest = envoy
        .lines()
        .skip_while(|line| !line.contains("- name: envoy.filters.http.wasm"));
    for line in filter.lines().take_while(|line| !line.contains("value: |")) {
        assert_eq!(rest.next().unwrap().trim(), line.trim());
    }
}

#[test]
fn an_unknown_preset_is_2_and_names_the_known_ones() {
    let run = run(&["init", "--preset", "nobody"]);
    assert_eq!((run.code, run.out.as_str()), (2, ""));
    assert!(
        run.err
            .contains("`nobody` is unknown, expected one of docs/presets.md, such as `notion`"),
        "{}",
        run.err
    );
}
