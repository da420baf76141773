//! Components that nobody should upload: each with the words by which it has to be refused.

use std::fmt::Write as _;

/// What is uploaded, its bytes, and what the refusal has to name.
pub(crate) type Hostile = (&'static str, Vec<u8>, &'static str);

/// Where the description lies in the memory of a component made here.
const DESCRIPTION: u32 = 1024;

fn from_text(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the text is WebAssembly")
}

/// A component of the world `tagger` with so many pages of memory, the body of `describe`, and more of the core module.
fn tagger(pages: u32, describe: &str, more: &str) -> Vec<u8> {
    from_text(&format!(
        r#"(component
  (component $inner
    (core module $module
      (memory (export "memory") {pages})
      (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable)
      (func (export "describe") (result i32) {describe})
      (func (export "evaluate") (param i64 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
      {more})
    (core instance $core (instantiate $module))
    (type $feature-kind' (enum "number" "text"))
    (export $feature-kind "feature-kind" (type $feature-kind'))
    (type $feature' (record (field "name" string) (field "kind" $feature-kind)))
    (export $feature "feature" (type $feature'))
    (type $tag-kind' (enum "flag" "number" "text"))
    (export $tag-kind "tag-kind" (type $tag-kind'))
    (type $tag' (record (field "name" string) (field "kind" $tag-kind) (field "values" (list string))))
    (export $tag "tag" (type $tag'))
    (type $description' (record (field "name" string) (field "summary" string) (field "reads" (list $feature))
      (field "writes" (list $tag)) (field "refresh-seconds" u32)))
    (export $description "description" (type $description'))
    (type $bits' (list u64))
    (export $bits "bits" (type $bits'))
    (type $number-column' (record (field "values" (list f64)) (field "present" $bits)))
    (export $number-column "number-column" (type $number-column'))
    (type $text-column' (record (field "codes" (list u32)) (field "dictionary" (list string))))
    (export $text-column "text-column" (type $text-column'))
    (type $flag-column' (record (field "values" $bits) (field "present" $bits)))
    (export $flag-column "flag-column" (type $flag-column'))
    (type $batch' (record (field "now-ms" s64) (field "utc-offset-seconds" s32) (field "rows" u32)
      (field "numbers" (list $number-column)) (field "texts" (list $text-column))))
    (export $batch "batch" (type $batch'))
    (type $tag-column' (variant (case "flag" $flag-column) (case "number" $number-column) (case "text" $text-column)))
    (export $tag-column "tag-column" (type $tag-column'))
    (func $describe (result $description) (canon lift (core func $core "describe") (memory (core memory $core "memory"))))
    (export "describe" (func $describe))
    (func $evaluate (param "batch" $batch) (result (result (list $tag-column) (error string)))
      (canon lift (core func $core "evaluate") (memory (core memory $core "memory")) (realloc (core func $core "realloc"))))
    (export "evaluate" (func $evaluate)))
  (instance $tagging (instantiate $inner))
  (export "heyuan:plugins/tagging@0.1.0" (instance $tagging)))"#
    ))
}

/// The memory of a component: what is put into it is found by its address.
struct Memory(Vec<u8>);

impl Memory {
    fn put(&mut self, bytes: &[u8]) -> u32 {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        let address = DESCRIPTION + self.0.len() as u32;
        self.0.extend_from_slice(bytes);
        address
    }

    /// Pointer and length of a text.
    fn text(&mut self, text: &[u8]) -> [u32; 2] {
        [self.put(text), text.len() as u32]
    }

    /// Pointer and length of a list of records, each of so many words.
    fn list(&mut self, records: &[Vec<u32>]) -> [u32; 2] {
        let bytes: Vec<u8> = records.concat().iter().flat_map(|word| word.to_le_bytes()).collect();
        [self.put(&bytes), records.len() as u32]
    }
}

/// A tagger that describes itself so: name, features that it reads, tags that it writes.
fn described(name: &[u8], reads: &[&str], writes: &[&str]) -> Vec<u8> {
    let mut memory = Memory(vec![0; 36]);
    let name = memory.text(name);
    let reads: Vec<Vec<u32>> = reads.iter().map(|read| [memory.text(read.as_bytes()).to_vec(), vec![0]].concat()).collect();
    let reads = memory.list(&reads);
    let writes: Vec<Vec<u32>> = writes.iter().map(|tag| [memory.text(tag.as_bytes()).to_vec(), vec![0, 0, 0]].concat()).collect();
    let writes = memory.list(&writes);
    let head: Vec<u8> = [name, [0, 0], reads, writes].concat().iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.0[..32].copy_from_slice(&head);
    let mut data = String::new();
    memory.0.iter().for_each(|byte| write!(data, "\\{byte:02x}").expect("a string takes it"));
    tagger(16, &format!("i32.const {DESCRIPTION}"), &format!(r#"(data (i32.const {DESCRIPTION}) "{data}")"#))
}

/// A tagger whose description has its name, its reads and its writes at these pointers with these lengths.
fn pointing(pages: u32, name: [u32; 2], reads: [u32; 2], writes: [u32; 2]) -> Vec<u8> {
    let words: Vec<u8> = [name, [0, 0], reads, writes].concat().iter().flat_map(|word| word.to_le_bytes()).collect();
    let data = words.iter().fold(String::new(), |data, byte| format!("{data}\\{byte:02x}"));
    tagger(pages, &format!("i32.const {DESCRIPTION}"), &format!(r#"(data (i32.const {DESCRIPTION}) "{data}")"#))
}

/// A tagger that is as it should be, so that what is refused is refused for its own fault.
pub(crate) fn harmless() -> Vec<u8> {
    described(b"harmless", &["visits"], &["seen"])
}

/// All of them that need no running tenant; `whole` is a component that is taken.
pub(crate) fn all(whole: &[u8]) -> Vec<Hostile> {
    let wasi = r#"(component (import "wasi:cli/environment@0.2.0" (instance (export "get-arguments" (func (result (list string)))))))"#;
    let other = r#"(component (instance $i) (export "heyuan:plugins/tagging@9.0.0" (instance $i)))"#;
    let hollow = r#"(component (instance $i) (export "heyuan:plugins/tagging@0.1.0" (instance $i)))"#;
    let grow = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))) unreachable";
    let endless = "(loop $again (br $again)) unreachable";
    let start = format!("(func $start {endless}) (start $start)");
    let deep = "(func $deep (result i32) (i32.add (call $deep) (i32.const 1)))";
    let many: Vec<String> = (0..129).map(|number| format!("feature_{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    vec![
        ("nothing", Vec::new(), "it is not WebAssembly"),
        ("a script", b"#!/bin/sh\nrm -rf /".to_vec(), "it is not WebAssembly"),
        ("a core module", from_text("(module)"), "core module"),
        ("another version of WebAssembly", b"\0asm\x07\0\x01\0".to_vec(), "unknown version"),
        ("half of a component", whole[..whole.len() / 2].to_vec(), "compile plugin"),
        ("a component of garbage", b"\0asm\x0d\0\x01\0\xff\xff\xff".to_vec(), "compile plugin"),
        ("an import of WASI", from_text(wasi), "imports wasi:cli/environment@0.2.0"),
        ("no world", from_text("(component)"), "it exports nothing"),
        ("another world", from_text(other), "heyuan:plugins/tagging@9.0.0"),
        ("a world by name alone", from_text(hollow), "fits no world"),
        ("an endless description", tagger(1, endless, ""), "used up its fuel"),
        ("an endless start", tagger(1, "unreachable", &start), "used up its fuel"),
        ("a description that digs", tagger(1, "call $deep", deep), "used up its stack"),
        ("a description that breaks off", tagger(1, "unreachable", ""), "broke off"),
        ("a description that eats memory", tagger(1, grow, ""), "more memory than it may have"),
        ("memory from the start", tagger(4_096, "unreachable", ""), "memory"),
        ("a description past its memory", tagger(1, "i32.const 65530", ""), "answer is refused"),
        ("a name past its memory", pointing(1, [65_000, 60_000], [0, 0], [0, 0]), "answer is refused"),
        ("a name of megabytes", pointing(128, [65_536, 7 << 20], [0, 0], [0, 0]), "larger than"),
        ("features without end", pointing(512, [0, 1], [65_536, 2_000_000], [0, 0]), "larger than"),
        ("no UTF-8", described(b"\xff\xfe", &["visits"], &["seen"]), "utf-8"),
        ("a long name", described(&[b'x'; 65], &["visits"], &["seen"]), "its name must be 1 to 64"),
        ("a wrong name", described("标签".as_bytes(), &["visits"], &["seen"]), "its name must be"),
        ("no name", described(b"", &["visits"], &["seen"]), "its name must be"),
        ("a feature twice", described(b"twice", &["visits", "visits"], &["seen"]), "it reads feature visits twice"),
        ("a feature without a name", described(b"nameless", &[""], &["seen"]), "a feature's name must be"),
        ("a part of the input as a feature", described(b"part", &["input.member"], &["seen"]), "input.member"),
        ("129 features", described(b"many", &many, &["seen"]), "it reads 129 features, 128 are allowed"),
        ("a tag twice", described(b"twice", &["visits"], &["seen", "seen"]), "it writes tag seen twice"),
        ("a wrong tag", described(b"wrong", &["visits"], &["Seen!"]), "a tag's name must be"),
        ("no tag", described(b"none", &["visits"], &[]), "it writes 0 tags"),
    ]
}
