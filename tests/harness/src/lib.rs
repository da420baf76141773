//! What tests stand on: a throwaway PostgreSQL, tenants run as real processes, the SDKs of others as clients, and faults.
//!
//! The crate knows Heyuan only from outside, by its binary and its HTTP API, so that a test written with it holds for whatever
//! is behind the door. Nothing here waits for a fixed time: [`until`] asks again until the answer is there or a deadline has
//! passed. Whatever a test starts ends with the test, and at the latest with the test process, however that ends.

mod answer;
mod database;
mod disk;
mod gateway;
mod kubernetes;
mod load;
mod postgres;
mod process;
mod proxy;
mod sdk;
mod statements;
mod stored;
mod tenant;
mod truth;
mod wait;

pub use answer::{Answer, Caller};
pub use database::{TestDatabase, for_both_databases};
pub use gateway::Gateway;
pub use kubernetes::{
    Access, ApiClient, ApiProxy, Behaviour, Call, ControlPlane, OPERATOR_ACCOUNT, OPERATOR_NAMESPACE, Operator, Orders, Pods, Purpose,
    Trouble, Watch, install_operator, uninstall_operator,
};
pub use load::concurrently;
pub use postgres::{Postgres, drop_root, free_port};
pub use process::{Beside, cache_dir, heyuan_binary, workspace_root};
pub use proxy::{Fault, Proxy};
pub use sdk::{node, python, python_tool};
pub use statements::StatementProxy;
pub use stored::{Held, StoredValue};
pub use tenant::{Tenant, TenantOptions};
pub use truth::{Agreement, TrueIdentifier, Truth};
pub use wait::until;
