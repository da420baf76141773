//! `heyuan simulator`: a payment gateway that misbehaves as real ones do, for trials and tests.

use anyhow::Context;
use clap::Args;
use heyuan_mall::Secret;
use heyuan_mall::simulator::{self, Simulator};
use std::net::TcpListener;

/// `heyuan simulator`
#[derive(Debug, Args)]
pub(crate) struct RunSimulator {
    /// Address and port
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: String,
    /// Where notifications go: the tenant's /v1/payments/notifications
    #[arg(long, default_value = "http://127.0.0.1:8080/v1/payments/notifications")]
    notify_url: String,
    /// The secret shared with the tenant (its setting mall.payment_secret)
    #[arg(long, env = "HEYUAN_MALL__PAYMENT_SECRET", hide_env_values = true)]
    secret: String,
}

/// Serves the gateway until it is told to stop.
///
/// # Errors
/// When the address can't be listened on.
pub(crate) async fn run(options: RunSimulator) -> anyhow::Result<()> {
    let listener = TcpListener::bind(&options.listen).with_context(|| format!("could not listen on {}", options.listen))?;
    let simulator = Simulator::new(Secret::new(options.secret), options.notify_url);
    simulator::serve(listener, simulator)?.await.context("the simulator broke off")
}
