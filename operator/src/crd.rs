//! The custom resources of the group `heyuan.dev`: what people write, what they are refused, and what they read back.

mod class;
mod plugin;
mod tenant;

pub use class::{
    ClassDatabase, ClassDefaults, ClassIngress, ClassLimits, ClassNetwork, ClassPlugins, ClassRollout, ClassStorage, DatabaseServer,
    Release, Size, SslMode, TenantClass, TenantClassSpec,
};
pub use plugin::{ConfigMapSource, Plugin, PluginKind, PluginMode, PluginSource, PluginSpec, PluginStatus, UrlSource};
pub use tenant::{
    Autoscaling, Database, Deletion, DeletionPolicy, Embedded, External, Managed, OrgUnit, PluginPolicy, Rotation, StoppedRelease, Storage,
    Tenant, TenantSpec, TenantStatus, UnitKind,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// Every definition, in the order in which they are installed.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![TenantClass::crd(), Tenant::crd(), Plugin::crd()]
}
