//! What is written from the operator's types, and written anew by `scripts/crds.sh`.

use crate::{helm, path, rendered, text};
use heyuan_operator::{crd, reasons};
use serde_json::{Map, Value};
use std::fmt::Write;

/// What the first line of a written file says.
const NOTICE: &str = "# Written by scripts/crds.sh; change the operator's types, or the chart, instead.\n";

/// Writes a file when `scripts/crds.sh` asks for it, and otherwise compares it.
fn check(file: &str, wanted: &str) {
    if std::env::var_os("HEYUAN_WRITE").is_some() {
        std::fs::create_dir_all(path(file).parent().expect("a file lies in a folder")).expect("the folder can be made");
        return std::fs::write(path(file), wanted).expect("the file can be written");
    }
    let there = std::fs::read_to_string(path(file)).unwrap_or_default();
    let first = there.lines().zip(wanted.lines()).find(|(there, wanted)| there != wanted);
    assert!(there == wanted, "{file} is not what the code says; run scripts/crds.sh. First difference: {first:?}");
}

/// Each definition as YAML, with the plural by which its file is called.
fn definitions() -> Vec<(String, String)> {
    let yaml = |definition| serde_saphyr::to_string(definition).expect("a definition can be written");
    crd::definitions().iter().map(|definition| (definition.spec.names.plural.clone(), yaml(definition))).collect()
}

#[test]
fn definitions_are_written_one_a_file() {
    for (plural, yaml) in definitions() {
        check(&format!("crds/heyuan.dev_{plural}.yaml"), &format!("{NOTICE}{yaml}"));
    }
}

#[test]
fn the_command_prints_the_same_definitions() {
    let printed = heyuan_operator::definitions().expect("definitions can be written");
    let parts: Vec<&str> = printed.split("---\n").filter(|part| !part.is_empty()).collect();
    let wanted: Vec<String> = definitions().into_iter().map(|(_, yaml)| yaml).collect();
    assert_eq!(parts, wanted);
}

#[test]
fn definitions_are_written_into_the_chart() {
    for (plural, yaml) in definitions() {
        assert!(!yaml.contains("{{"), "a description with braces would be a template");
        let (head, rest) = yaml.split_once("\nmetadata:\n").expect("a definition has metadata");
        let template = format!(
            "{NOTICE}{{{{- if .Values.crds.install }}}}\n{head}\nmetadata:\n  annotations:\n    {{{{- if .Values.crds.keep }}}}\n    \
             helm.sh/resource-policy: keep\n    {{{{- end }}}}\n  labels:\n    {{{{- include \"heyuan.labels\" . | nindent 4 }}}}\n{rest}\
             {{{{- end }}}}\n",
        );
        check(&format!("charts/heyuan/templates/definitions/{plural}.yaml"), &template);
    }
}

#[test]
fn the_kustomize_base_is_the_rendered_chart() {
    let Some(helm) = helm() else { return };
    let rendering = rendered(&helm, &["--set=crds.install=false"]);
    let of_helm = ["# Source:", "helm.sh/chart:", "app.kubernetes.io/managed-by: Helm"];
    let lines = rendering.lines().filter(|line| !of_helm.iter().any(|words| line.trim_start().starts_with(words)));
    let base: String = lines.flat_map(|line| [line, "\n"]).collect();
    check("deploy/kustomize/operator.yaml", &format!("{NOTICE}{base}"));
}

#[test]
fn the_manual_has_a_row_for_every_field_and_every_reason() {
    let manual = text("docs/operator.md");
    let mut wanted = manual.clone();
    for definition in crd::definitions() {
        let schema = serde_json::to_value(&definition.spec.versions[0].schema).expect("a schema is JSON");
        let properties = &schema["openAPIV3Schema"]["properties"];
        for (part, heading) in [("spec", "field"), ("status", "field of the status")] {
            if properties[part].is_object() {
                let mut table = format!("| {heading} | type | default | what it is |\n|---|---|---|---|\n");
                rows(&mut table, "", &properties[part]);
                wanted = replaced(&wanted, &format!("{} {part}", definition.spec.names.kind), &table);
            }
        }
    }
    wanted = replaced(&wanted, "reasons", &reasons());
    check("docs/operator.md", &wanted);
}

/// The text with a table between the marks of its name.
fn replaced(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (head, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("docs/operator.md has no mark {begin}"));
    let (_, tail) = rest.split_once(&end).unwrap_or_else(|| panic!("docs/operator.md has no mark {end}"));
    format!("{head}{begin}\n{table}\n{end}{tail}")
}

/// A row for each field below a schema.
fn rows(table: &mut String, above: &str, schema: &Value) {
    let none = Map::new();
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (field, inner) in schema["properties"].as_object().unwrap_or(&none) {
        let name = format!("{above}{field}");
        let default = match &inner["default"] {
            Value::Null if required.contains(&field.as_str()) => "**required**".to_owned(),
            Value::Null => String::new(),
            Value::Object(_) => String::new(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let words = inner["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let row = format!("| `{name}` | {} | {default} | {} |", kind(inner), words.replace('|', "\\|"));
        writeln!(table, "{row}").expect("a text can be written to");
        rows(table, &format!("{name}."), inner);
        // A condition's fields are Kubernetes' own.
        if inner["items"]["properties"].is_object() && field != "conditions" {
            rows(table, &format!("{name}[]."), &inner["items"]);
        }
    }
}

/// The type of a field and its bounds, in words.
fn kind(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        let words: Vec<String> = values.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        return words.join(", ");
    }
    let between = |fewest: &str, most: &str| match (schema[fewest].as_f64(), schema[most].as_f64()) {
        (Some(fewest), Some(most)) => format!(", {fewest} to {most}"),
        (None, Some(most)) => format!(", at most {most}"),
        (Some(fewest), None) => format!(", at least {fewest}"),
        (None, None) => String::new(),
    };
    match schema["type"].as_str() {
        Some("string") if schema["format"] == "date-time" => "time".to_owned(),
        Some("string") => match between("minLength", "maxLength") {
            bounds if bounds.is_empty() => "text".to_owned(),
            bounds => format!("text{bounds} characters"),
        },
        Some("integer") => format!("number{}", between("minimum", "maximum")),
        Some("boolean") => "yes or no".to_owned(),
        Some("array") => format!("list{}", between("minItems", "maxItems")),
        Some("object") if schema["additionalProperties"].is_object() => "map of texts".to_owned(),
        _ => "object".to_owned(),
    }
}
