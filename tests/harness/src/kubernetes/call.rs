//! What a request to an API server asks for, in Kubernetes' own words.

use serde_json::Value;
use url::form_urlencoded::parse;

/// One call, as `kubectl auth can-i` would name it; a call of PostgreSQL has the verb `sql`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths the method in small letters.
    pub verb: &'static str,
    /// `deployments.apps`, `tenants.heyuan.dev/status`, `secrets`; for other paths the path, such as `/readyz`;
    /// for `sql` the beginning of the statement.
    pub resource: String,
    /// `None` for what belongs to the cluster, and for all namespaces.
    pub namespace: Option<String>,
    /// Of a created object what its body says, if it is JSON.
    pub name: Option<String>,
}

impl Call {
    pub(super) fn of(method: &str, path: &str, query: &str, body: &[u8]) -> Self {
        let Some(place) = Place::of(path) else {
            return Self { verb: verb_of_method(method), resource: path.to_owned(), namespace: None, name: None };
        };
        let verb = match (method, &place.name) {
            ("GET", _) if watches(query) => "watch",
            ("GET", None) => "list",
            ("DELETE", None) => "deletecollection",
            _ => verb_of_method(method),
        };
        let name = place.name.map(str::to_owned).or_else(|| if verb == "create" { name_in(body) } else { None });
        Self { verb, resource: place.resource, namespace: place.namespace.map(str::to_owned), name }
    }

    /// Changes something, or would unless it is a dry run.
    pub fn writes(&self) -> bool {
        matches!(self.verb, "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    pub fn is(&self, verb: &str, resource: &str) -> bool {
        self.verb == verb && self.resource == resource
    }
}

/// Where the object or collection of a path lies.
struct Place<'a> {
    resource: String,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, rest) = match parts.as_slice() {
            ["api", _, rest @ ..] => ("", rest),
            ["apis", group, _, rest @ ..] => (*group, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            // A namespace is itself an object; these two are its own subresources.
            ["namespaces", _, "status" | "finalize"] => (None, rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            _ => (None, rest),
        };
        let [kind, rest @ ..] = rest else { return None };
        let mut resource = if group.is_empty() { (*kind).to_owned() } else { format!("{kind}.{group}") };
        if let Some(subresource) = rest.get(1) {
            resource = format!("{resource}/{subresource}");
        }
        Some(Self { resource, namespace, name: rest.first().copied() })
    }
}

fn verb_of_method(method: &str) -> &'static str {
    match method {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "other",
    }
}

fn watches(query: &str) -> bool {
    parse(query.as_bytes()).any(|(key, value)| key == "watch" && (value == "true" || value == "1"))
}

fn name_in(body: &[u8]) -> Option<String> {
    let object: Value = serde_json::from_slice(body).ok()?;
    object["metadata"]["name"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::Call;

    fn check(method: &str, target: &str, expected: (&str, &str, Option<&str>, Option<&str>)) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let call = Call::of(method, path, query, br#"{"metadata": {"name": "inside"}}"#);
        let found = (call.verb, call.resource.as_str(), call.namespace.as_deref(), call.name.as_deref());
        assert_eq!(found, expected, "{method} {target}");
    }

    #[test]
    fn a_call_is_named_as_kubernetes_names_it() {
        check("GET", "/api/v1/namespaces", ("list", "namespaces", None, None));
        check("GET", "/api/v1/namespaces/a", ("get", "namespaces", None, Some("a")));
        check("PUT", "/api/v1/namespaces/a/finalize", ("update", "namespaces/finalize", None, Some("a")));
        check("GET", "/api/v1/namespaces/a/secrets", ("list", "secrets", Some("a"), None));
        check("GET", "/api/v1/secrets?watch=true&limit=5", ("watch", "secrets", None, None));
        check("GET", "/api/v1/namespaces/a/secrets?watch=1", ("watch", "secrets", Some("a"), None));
        check("DELETE", "/api/v1/namespaces/a/secrets", ("deletecollection", "secrets", Some("a"), None));
        check("DELETE", "/api/v1/namespaces/a/secrets/s", ("delete", "secrets", Some("a"), Some("s")));
        check("POST", "/apis/apps/v1/namespaces/a/deployments", ("create", "deployments.apps", Some("a"), Some("inside")));
        check("PATCH", "/apis/heyuan.dev/v1/tenants/t/status", ("patch", "tenants.heyuan.dev/status", None, Some("t")));
        check("POST", "/api/v1/namespaces/a/serviceaccounts/s/token", ("create", "serviceaccounts/token", Some("a"), Some("s")));
        check("GET", "/readyz", ("get", "/readyz", None, None));
        check("GET", "/apis/apps/v1", ("get", "/apis/apps/v1", None, None));
    }
}
