//! A real Kubernetes for tests: API server, controllers and etcd as processes, identities to speak to it, and a proxy that breaks calls.
//!
//! There is no kubelet here: pods are objects that nobody runs, and a test plays their answers by writing status, for tenants with `Pods`. Programs and
//! certificates come from `tests/kubernetes`, built and installed by `scripts/setup.sh test`.

mod access;
mod api_client;
mod call;
mod control_plane;
mod operator;
mod pods;
mod proxy;
mod trouble;
mod watched;

pub use access::Access;
pub use api_client::{ApiClient, Watch};
pub use call::Call;
pub use control_plane::{ControlPlane, Purpose};
pub use operator::{OPERATOR_ACCOUNT, OPERATOR_NAMESPACE, Operator, install_operator, uninstall_operator};
pub use pods::{Behaviour, Orders, Pods};
pub use proxy::ApiProxy;
pub use trouble::Trouble;

pub(crate) use proxy::kill;
pub(crate) use trouble::Plan;
