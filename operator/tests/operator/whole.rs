//! A whole life of a tenant in phases, and what must hold of its data and its secrets after each.

use std::time::Duration;

use heyuan_harness::{OPERATOR_NAMESPACE, until};
use serde_json::{Value, json};

use super::ground::{Ground, psql, text_of};

/// Keys of the master secret that never change.
const KEPT: [&str; 4] = ["tenant-key", "operator-key", "proof", "admin-key"];

/// One tenant's data, from the tenant that makes it to the one that takes it away.
pub(super) struct Life<'a> {
    ground: &'a Ground,
    limit: Duration,
    /// The name of the tenant that has the data now.
    tenant: String,
    data_id: String,
    /// What the master secret held first.
    secrets: Vec<String>,
}

impl<'a> Life<'a> {
    /// Lives it to its end; `enter` hears of each phase before it begins.
    pub(super) async fn live(ground: &'a Ground, name: &str, limit: Duration, enter: impl Fn(&'static str)) {
        enter("make");
        let mut life = Life::make(ground, name, limit).await;
        enter("change");
        ground.change(name, json!({ "hosts": [format!("new-{name}.example.com")], "replicas": 2, "displayName": "Changed" })).await;
        life.settle().await;
        enter("upgrade");
        ground.change(name, json!({ "release": "2" })).await;
        assert_eq!(life.settle().await["status"]["release"], "2");
        enter("rotate");
        life.rotate("b").await;
        enter("retain");
        life.retain().await;
        enter("adopt");
        life.adopt(&format!("{name}-heir")).await;
        enter("remove");
        life.remove().await;
    }

    async fn make(ground: &'a Ground, name: &str, limit: Duration) -> Self {
        let units = json!([{ "id": "city-1", "name": "City", "kind": "city" }]);
        ground.tenant(name, &json!({ "hosts": [format!("{name}.example.com")], "units": units })).await;
        let tenant = ground.settle(name, limit).await;
        let data_id = tenant["status"]["dataId"].as_str().expect("a data id").to_owned();
        let mut life = Life { ground, limit, tenant: name.to_owned(), data_id, secrets: Vec::new() };
        let master = life.master().await.expect("a master secret");
        life.secrets = KEPT.iter().map(|key| text_of(&master, key)).collect();
        psql(&life.url().await, "create table kept (n int); insert into kept values (42)").expect("the tenant may");
        life.intact().await;
        life
    }

    /// Waits until the tenant is as it wishes, and looks whether its data is whole.
    async fn settle(&self) -> Value {
        let tenant = self.ground.settle(&self.tenant, self.limit).await;
        self.intact().await;
        tenant
    }

    /// A new password, for the login of this letter.
    async fn rotate(&self, login: &str) {
        let old = self.url().await;
        self.ground.admin.kubectl(&["annotate", "tenant", &self.tenant, "--overwrite", &format!("heyuan.dev/rotate={login}")]).await;
        until("the rotation is over", self.limit, || async {
            let record = text_of(&self.master().await?, "record");
            let record: Value = serde_json::from_str(&record).expect("the record is JSON");
            (record["active"].as_str()?.eq_ignore_ascii_case(login) && record["turning"].is_null()).then_some(())
        })
        .await;
        self.settle().await;
        psql(&old, "select 1").expect_err("the old password is closed");
    }

    async fn retain(&self) {
        let url = self.url().await;
        self.end().await;
        psql(&url, "select 1").expect_err("nobody logs in any more");
        assert_eq!(self.databases(), "1", "retained data stays");
        let master = self.master().await.expect("its keys stay");
        assert_eq!(KEPT.map(|key| text_of(&master, key)).to_vec(), self.secrets);
        let record: Value = serde_json::from_str(&text_of(&master, "record")).expect("the record is JSON");
        assert!(record["holder"].is_null(), "{record}");
        assert_eq!(self.records().await, ["retained"], "it can be found");
    }

    async fn adopt(&mut self, name: &str) {
        self.tenant = name.to_owned();
        let deletion = json!({ "policy": "Delete", "graceSeconds": 1 });
        self.ground.tenant(name, &json!({ "adopt": self.data_id, "deletion": deletion })).await;
        self.settle().await;
        assert!(self.records().await.is_empty(), "it is retained no more");
    }

    async fn remove(&self) {
        self.end().await;
        assert_eq!(self.databases(), "0", "its database is removed");
        let roles = self.ground.sql(&format!("select count(*) from pg_roles where rolname like 'heyuan_{}%'", self.data_id));
        assert_eq!(roles, "0", "so are its roles");
        assert!(self.master().await.is_none(), "and its keys");
        assert!(self.records().await.is_empty(), "nothing is left to be told");
    }

    /// Deletes the tenant and waits until it is gone, with its namespace.
    async fn end(&self) {
        let ground = self.ground;
        ground.admin.kubectl(&["delete", "tenant", &self.tenant, "--wait=false"]).await;
        until(&format!("tenant {} is gone", self.tenant), self.limit, || async { ground.is_gone(&self.tenant).await.then_some(()) }).await;
        assert!(ground.get("namespace", &format!("tenant-{}", self.tenant)).await.is_none(), "its namespace is gone");
    }

    /// One database, its data, its keys, and a key of the administrator's that the process knows.
    async fn intact(&self) {
        assert_eq!(psql(&self.url().await, "select n from kept"), Ok("42".to_owned()), "the data is there");
        assert_eq!(self.databases(), "1", "there is one database");
        let master = self.master().await.expect("a master secret");
        assert_eq!(KEPT.map(|key| text_of(&master, key)).to_vec(), self.secrets, "no key is lost");
        let copy = self.copy("heyuan").await;
        assert_eq!(text_of(&copy, "tenant-key"), self.secrets[0], "the tenant has its key");
        assert_eq!(text_of(&self.copy("heyuan-admin").await, "admin-key"), self.secrets[3], "the administrator has one");
    }

    /// Databases of tenants on the whole server, which is this life's own.
    fn databases(&self) -> String {
        self.ground.sql("select count(*) from pg_database where datname ~ '^heyuan_[a-z0-9]{16}$'")
    }

    async fn master(&self) -> Option<Value> {
        self.ground.at(&format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/secrets/tenant-data-{}", self.data_id)).await
    }

    async fn copy(&self, name: &str) -> Value {
        let path = format!("/api/v1/namespaces/tenant-{}/secrets/{name}", self.tenant);
        self.ground.at(&path).await.unwrap_or_else(|| panic!("secret {name} is there"))
    }

    /// What is written down of this data in the operator's namespace, but for the host names that a tenant has.
    async fn records(&self) -> Vec<String> {
        let path = format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/configmaps?labelSelector=heyuan.dev/data={}", self.data_id);
        let list = self.ground.at(&path).await.expect("config maps are listed");
        let labels = list["items"].as_array().into_iter().flatten().map(|map| &map["metadata"]["labels"]["heyuan.dev/record"]);
        labels.map(|label| label.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The tenant's own way to its database, past any proxy.
    async fn url(&self) -> String {
        let mut url = url::Url::parse(&text_of(&self.copy("heyuan").await, "database-url")).expect("a URL");
        url.set_port(Some(self.ground.server.port())).expect("it has a host");
        url.to_string()
    }
}
