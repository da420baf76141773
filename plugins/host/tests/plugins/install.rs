//! What is taken in, what is refused and why, and whose compiled code is believed.

use std::{fs, path::PathBuf};

use heyuan_plugin_host::{CompilerCommand, Digest, Error, Host};
use tempfile::TempDir;

use crate::setup::{component, config, host_with};

fn host() -> (TempDir, Host) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let host = Host::new(config(dir.path())).expect("the host starts");
    (dir, host)
}

fn stored(dir: &TempDir) -> Vec<PathBuf> {
    fs::read_dir(dir.path()).expect("the store is a folder").map(|entry| entry.expect("it can be listed").path()).collect()
}

fn refused(bytes: &[u8], words: &str) {
    let (dir, host) = host();
    let error = host.install(bytes).expect_err("it is refused");
    let mut told = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        told = format!("{told}: {error}");
        source = error.source();
    }
    assert!(told.contains(words), "{told}");
    assert_eq!(stored(&dir), Vec::<PathBuf>::new(), "a refused plugin leaves nothing behind");
}

fn from_text(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the text is WebAssembly")
}

#[test]
fn what_is_no_component_is_refused_with_its_reason() {
    refused(b"", "it is not WebAssembly");
    refused(b"#!/bin/sh\nrm -rf /", "it is not WebAssembly");
    refused(&from_text("(module)"), "core module");
    refused(b"\0asm\x07\0\x01\0", "unknown version");
    refused(b"\0asm\x0d\0\x01\0\xff\xff\xff", "compile plugin");
    let whole = component("member-day");
    refused(&whole[..whole.len() / 2], "compile plugin");
    refused(&vec![0; 5 << 20], "are allowed");
}

#[test]
fn garbage_inside_a_component_is_told_apart_from_a_dead_compiler() {
    let mut bytes = component("member-day");
    for byte in bytes.iter_mut().skip(1_000).step_by(97) {
        *byte ^= 0x5a;
    }
    let (_dir, host) = host();
    assert!(matches!(host.install(&bytes), Err(Error::Compile { .. })));
}

#[test]
fn precompiled_code_is_refused() {
    let (dir, host, _digest) = host_with("member-day");
    let code = fs::read(&stored(&dir)[0]).expect("the code is stored");
    // Past the mark, which is what an attacker would upload.
    assert!(matches!(host.install(&code[40..]), Err(Error::NotAComponent(reason)) if reason.contains("precompiled")));
    assert!(matches!(host.install(&code), Err(Error::NotAComponent(_))));
}

#[test]
fn a_component_that_wants_more_than_a_log_is_refused() {
    refused(
        &from_text(
            r#"(component (import "wasi:cli/environment@0.2.0" (instance (export "get-arguments" (func (result (list string)))))))"#,
        ),
        "imports wasi:cli/environment@0.2.0",
    );
}

#[test]
fn a_component_of_no_known_world_is_refused() {
    refused(&from_text("(component)"), "it exports nothing");
    refused(
        &from_text(r#"(component (instance $i) (export "heyuan:plugins/tagging@9.0.0" (instance $i)))"#),
        "it exports heyuan:plugins/tagging@9.0.0, but this host knows heyuan:plugins/tagging@0.1.0",
    );
    refused(&from_text(r#"(component (instance $i) (export "heyuan:plugins/tagging@0.1.0" (instance $i)))"#), "fits no world");
}

#[test]
fn the_same_component_is_compiled_once() {
    let (dir, host, digest) = host_with("member-day");
    assert_eq!(host.install(&component("member-day")).expect("it is there"), digest);
    let mut without_compiler = config(dir.path());
    without_compiler.compiler = CompilerCommand::new("/nonexistent", &[]);
    let restarted = Host::new(without_compiler).expect("the host starts");
    assert!(restarted.load(&digest).expect("the code is ours"));
    assert!(!restarted.load(&Digest::of(b"another")).expect("nothing is stored"));
    assert_eq!(restarted.describe(&digest).expect("it is installed"), host.describe(&digest).expect("it is installed"));
    assert!(restarted.unload(&digest));
    assert!(matches!(restarted.describe(&digest), Err(Error::NotInstalled(_))));
}

#[test]
fn changed_code_is_set_aside_and_compiled_again() {
    let (dir, _host, digest) = host_with("member-day");
    let path = stored(&dir).remove(0);
    let original = fs::read(&path).expect("the code is stored");
    for place in [0, 10, 100, original.len() - 1] {
        let mut changed = original.clone();
        changed[place] ^= 1;
        fs::write(&path, &changed).expect("the store can be written");
        let restarted = Host::new(config(dir.path())).expect("the host starts");
        assert!(!restarted.load(&digest).expect("changed code counts as missing"), "byte {place}");
        assert_eq!(restarted.install(&component("member-day")).expect("it is compiled again"), digest);
        assert_eq!(fs::read(&path).expect("the code is stored"), original);
    }
    fs::write(&path, b"").expect("the store can be written");
    assert!(!Host::new(config(dir.path())).expect("the host starts").load(&digest).expect("an empty file counts as missing"));
}

#[test]
fn code_of_another_key_or_another_plugin_is_not_believed() {
    let (dir, host, digest) = host_with("member-day");
    let mut other_key = config(dir.path());
    other_key.cache_key = [8; 32];
    assert!(!Host::new(other_key).expect("the host starts").load(&digest).expect("foreign code counts as missing"));

    let (dir, host_again, digest) = host_with("member-day");
    let member_day = stored(&dir).remove(0);
    let home_upgrader = host_again.install(&component("home-upgrader")).expect("it is installed");
    let name = member_day.file_name().and_then(|name| name.to_str()).expect("the name is text");
    let exchanged = dir.path().join(name.replace(&digest.to_string(), &home_upgrader.to_string()));
    fs::copy(&member_day, &exchanged).expect("the store can be written");
    assert!(!Host::new(config(dir.path())).expect("the host starts").load(&home_upgrader).expect("exchanged code counts as missing"));
    drop(host);
}

#[test]
fn a_plugin_of_one_kind_is_not_called_as_the_other() {
    let (_dir, host, digest) = host_with("member-day");
    assert!(matches!(host.tagger(&digest), Err(Error::Kind { is: "benefit rule", .. })));
    assert!(matches!(host.benefit_rule(&Digest::of(b"")), Err(Error::NotInstalled(_))));
}

fn with_compiler(change: impl Fn(&mut CompilerCommand)) -> Error {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut config = config(dir.path());
    change(&mut config.compiler);
    Host::new(config).expect("the host starts").install(&component("member-day")).expect_err("the compiler is stopped")
}

#[test]
fn a_compiler_past_its_limits_is_stopped_and_said_so() {
    let is_stop = |error: &Error, words: &str| {
        assert!(matches!(error, Error::CompilerStopped { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    };
    let costly = with_compiler(|compiler| compiler.memory_bytes = 16 << 20);
    assert!(matches!(&costly, Error::TooCostly { message, .. } if message.contains("16777216 bytes of memory")), "{costly:?}");
    let costly = with_compiler(|compiler| compiler.output_bytes = 1_000);
    assert!(matches!(&costly, Error::TooCostly { message, .. } if message.contains("larger than 1000 bytes")), "{costly:?}");
    let costly = with_compiler(|compiler| {
        compiler.program = "/bin/sh".into();
        compiler.args = vec!["-c".to_owned(), "kill -XCPU $$".to_owned()];
    });
    assert!(matches!(&costly, Error::TooCostly { message, .. } if message.contains("20 s of processor time")), "{costly:?}");
    is_stop(&with_compiler(|compiler| compiler.program = "/nonexistent".into()), "start /nonexistent");
    is_stop(
        &with_compiler(|compiler| {
            compiler.program = "/bin/sh".into();
            compiler.args = vec!["-c".to_owned(), "exec sleep 60".to_owned()];
            compiler.timeout_ms = 100;
        }),
        "did not end within 100 ms",
    );
    is_stop(
        &with_compiler(|compiler| {
            compiler.program = "/bin/sh".into();
            compiler.args = vec!["-c".to_owned(), "kill -9 $$".to_owned()];
        }),
        "it was killed",
    );
}

#[test]
fn the_compiler_sees_no_environment() {
    // `env` prints what the child was given, which is then no component's code.
    let error = with_compiler(|compiler| {
        compiler.program = "/bin/sh".into();
        compiler.args = vec!["-c".to_owned(), "test -z \"$HOME$USER\" && test \"$PWD\" = / && exit 42".to_owned()];
    });
    assert!(error.to_string().contains("it ended with 42"), "{error}");
}
