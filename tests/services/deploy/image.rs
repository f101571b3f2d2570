//! `deploy/docker/oci-image.sh` makes the image that Istio and Envoy Gateway load.

use std::fs;
use std::path::Path;
use std::process::Command;

use callback_guard_harness::{page, wasm};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::programs::{find, output, run};
use super::support::{checkout, path};

fn make(module: &Path, image: &Path) -> String {
    run(Command::new(path("deploy/docker/oci-image.sh"))
        .arg(module)
        .arg(image))
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The blob of a descriptor, whose digest and size must be right.
#[track_caller]
fn blob(image: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    let file = digest.replace(':', "/");
    let bytes = fs::read(image.join("blobs").join(file)).unwrap();
    assert_eq!(sha256(&bytes), digest);
    assert_eq!(u64::try_from(bytes.len()).unwrap(), descriptor["size"]);
    bytes
}

/// A module of some size; what is in it does not matter here.
fn module(directory: &TempDir) -> std::path::PathBuf {
    let module = directory.path().join("some.wasm");
    let bytes: Vec<u8> = b"\0asm\x01\0\0\0".repeat(5000);
    fs::write(&module, bytes).unwrap();
    module
}

#[test]
fn the_image_has_one_layer_with_the_module_alone() {
    let directory = TempDir::new().unwrap();
    let module = module(&directory);
    let image = directory.path().join("image");
    let said = make(&module, &image);
    let bytes = fs::read(&module).unwrap();

    let layout: Value =
        serde_json::from_slice(&fs::read(image.join("oci-layout")).unwrap()).unwrap();
    assert_eq!(layout["imageLayoutVersion"], "1.0.0");
    let index: Value =
        serde_json::from_slice(&fs::read(image.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let manifest: Value = serde_json::from_slice(&blob(&image, &index["manifests"][0])).unwrap();
    let config: Value = serde_json::from_slice(&blob(&image, &manifest["config"])).unwrap();

    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    let layer = &manifest["layers"][0];
    assert_eq!(
        layer["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    assert_eq!(
        manifest["annotations"]["module.wasm.image/variant"],
        "compat"
    );

    let packed = blob(&image, layer);
    // Of gzip's header (RFC 1952): no flags, so no file name; no time.
    assert_eq!(packed[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    let gzip = directory.path().join("layer.tar.gz");
    fs::write(&gzip, packed).unwrap();
    let tar = output(
        Command::new("gzip")
            .args(["--decompress", "--stdout"])
            .arg(&gzip),
    )
    .stdout;
    assert_eq!(
        config["rootfs"]["diff_ids"],
        serde_json::json!([sha256(&tar)])
    );

    // Of ustar's header (POSIX.1): name, mode, owner, group, size, time, kind.
    let field = |from: usize, to: usize| {
        let text = String::from_utf8_lossy(&tar[from..to]).into_owned();
        text.trim_end_matches(['\0', ' ']).to_owned()
    };
    assert_eq!(field(0, 100), "plugin.wasm");
    assert_eq!(field(100, 108), "0000644");
    assert_eq!(field(108, 116), "0000000");
    assert_eq!(field(116, 124), "0000000");
    assert_eq!(
        usize::from_str_radix(&field(124, 136), 8).unwrap(),
        bytes.len()
    );
    assert_eq!(field(136, 148), "00000000000");
    assert_eq!(field(156, 157), "0");
    assert_eq!(field(265, 329), "");
    assert_eq!(tar[512..512 + bytes.len()], bytes[..]);
    // Nothing behind it but padding.
    assert!(tar[512 + bytes.len()..].iter().all(|byte| *byte == 0));

    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    assert_eq!(
        said,
        format!("file    {}\nimage   {digest}\n", sha256(&bytes))
    );
}

#[test]
fn the_same_module_gives_the_same_image() {
    let directory = TempDir::new().unwrap();
    let module = module(&directory);
    let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
    let said = make(&module, &first);
    // Neither its mode nor its time matters.
    run(Command::new("chmod").arg("0755").arg(&module));
    run(Command::new("touch").args(["-d", "@1"]).arg(&module));
    assert_eq!(make(&module, &second), said);
    run(Command::new("diff").arg("-r").arg(&first).arg(&second));
}

#[test]
fn a_tool_for_images_reads_it() {
    let directory = TempDir::new().unwrap();
    let image = directory.path().join("image");
    let said = make(&module(&directory), &image);
    let found = run(Command::new(find("skopeo", "skopeo"))
        .arg("inspect")
        .arg(format!("oci:{}:latest", image.display())));
    let found: Value = serde_json::from_str(&found).unwrap();
    let digest = found["Digest"].as_str().unwrap();
    assert!(said.ends_with(&format!("image   {digest}\n")), "{said}");
    assert_eq!(found["Architecture"], "amd64");
    assert_eq!(found["Layers"].as_array().unwrap().len(), 1);
}

/// The image is copied into a folder instead of a registry.
#[test]
fn the_commands_of_the_page_make_and_copy_the_image() {
    let block = page::block(
        "deploy/docker/README.md",
        "the_commands_of_the_page_make_and_copy_the_image",
    );
    let block = block.unwrap();
    let reader = checkout().instead("docker://REGISTRY/callback-guard:0.2.0", "dir:copy");
    find("skopeo", "skopeo");
    let said = reader.run(&block.text).unwrap();
    assert_eq!(said.code, Some(0), "{said:?}");
    let module = fs::read(wasm::module(&|_| {}).unwrap()).unwrap();
    assert!(said.text.contains(&sha256(&module)), "{said:?}");
    let manifest = fs::read(reader.folder().join("copy/manifest.json")).unwrap();
    assert!(said.text.contains(&sha256(&manifest)), "{said:?}");
}

#[test]
fn what_is_wrong_is_said() {
    let directory = TempDir::new().unwrap();
    let script = path("deploy/docker/oci-image.sh");
    let missing = directory.path().join("missing.wasm");
    let image = directory.path().join("image");
    let refused = output(Command::new(&script).arg(&missing).arg(&image));
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("missing.wasm: no such file"), "{said}");

    let module = module(&directory);
    let refused = output(Command::new(&script).arg(&module).arg(directory.path()));
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(output(&mut Command::new(&script)).status.code(), Some(2));
}
