//! The kinds of objects that a tenant is made of.

use kube::api::DynamicObject;
use kube::discovery::ApiResource;
use serde_json::Value;

macro_rules! kinds {
    ($($name:ident $group:literal $version:literal $plural:literal)*) => {
        /// A kind of object that the operator makes and watches. Secrets are not among them: they are read by name alone.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Kind {
            $($name,)*
        }

        impl Kind {
            /// Every kind.
            pub(crate) const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// Group, version, kind and plural.
            const fn words(self) -> (&'static str, &'static str, &'static str, &'static str) {
                match self {
                    $(Kind::$name => ($group, $version, stringify!($name), $plural),)*
                }
            }
        }
    };
}

kinds! {
    Namespace "" "v1" "namespaces"
    ServiceAccount "" "v1" "serviceaccounts"
    ConfigMap "" "v1" "configmaps"
    PersistentVolumeClaim "" "v1" "persistentvolumeclaims"
    ResourceQuota "" "v1" "resourcequotas"
    Service "" "v1" "services"
    RoleBinding "rbac.authorization.k8s.io" "v1" "rolebindings"
    NetworkPolicy "networking.k8s.io" "v1" "networkpolicies"
    Ingress "networking.k8s.io" "v1" "ingresses"
    Deployment "apps" "v1" "deployments"
    Job "batch" "v1" "jobs"
    HorizontalPodAutoscaler "autoscaling" "v2" "horizontalpodautoscalers"
    PodDisruptionBudget "policy" "v1" "poddisruptionbudgets"
}

impl Kind {
    /// How it is addressed.
    pub(crate) fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = self.words();
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        ApiResource { group: group.into(), version: version.into(), api_version, kind: kind.into(), plural: plural.into() }
    }

    /// The kind of an object, if it is one of these.
    pub(crate) fn of(object: &Value) -> Option<Kind> {
        let kind = object["kind"].as_str()?;
        Kind::ALL.iter().copied().find(|one| one.words().2 == kind)
    }

    /// An object of it as JSON, without who wrote which field; items of a list come without kind and version.
    pub(crate) fn value_of(self, mut object: DynamicObject) -> Value {
        object.metadata.managed_fields = None;
        let mut value = object.data;
        if !value.is_object() {
            value = Value::Object(serde_json::Map::new());
        }
        value["metadata"] = serde_json::to_value(object.metadata).unwrap_or_default();
        value["kind"] = self.as_str().into();
        value["apiVersion"] = self.resource().api_version.into();
        value
    }

    /// Its name in messages.
    pub(crate) const fn as_str(self) -> &'static str {
        self.words().2
    }
}
