//! A payment gateway for a tenant: `heyuan simulator` as a process of its own.

use std::process::{Child, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::postgres::free_port;
use crate::process::{heyuan_binary, spawn_bound};
use crate::{Tenant, until};

const START_LIMIT: Duration = Duration::from_secs(30);
/// Only these two processes know it, and only they can reach each other.
const SECRET: &str = "a secret of one test";

/// A gateway that behaves; dropped, it is killed.
///
/// A tenant must know where its gateway is before it starts, and the gateway must know the tenant: the place is chosen first
/// ([`Gateway::somewhere`]), the tenant starts with [`Gateway::environment`], and then [`Gateway::open`] starts the gateway.
#[derive(Debug)]
pub struct Gateway {
    port: u16,
    process: Option<Child>,
}

impl Gateway {
    /// Chooses a free port; nothing listens there yet.
    pub fn somewhere() -> Self {
        Self { port: free_port(), process: None }
    }

    /// What a tenant needs to use it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let url = format!("http://127.0.0.1:{}", self.port);
        vec![("HEYUAN_MALL__GATEWAY_URL".into(), url), ("HEYUAN_MALL__PAYMENT_SECRET".into(), SECRET.into())]
    }

    /// Starts it; its notifications go to this tenant, which keeps its address when it is started again.
    pub async fn open(&mut self, tenant: &Tenant) {
        let process = spawn_bound(&heyuan_binary(), |command| {
            let notify_url = format!("{}/v1/payments/notifications", tenant.url());
            command.args(["simulator", "--listen", &format!("127.0.0.1:{}", self.port), "--notify-url", &notify_url]);
            command.args(["--secret", SECRET]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        });
        self.process = Some(process.expect("heyuan simulator starts"));
        until("the gateway listens", START_LIMIT, || async { TcpStream::connect(("127.0.0.1", self.port)).await.ok() }).await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Already gone is as good as killed.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
