//! `heyuan simulator`: a payment gateway, WeChat's log-in, a provider of phone codes and one of OpenID Connect that misbehave as real ones do,
//! for trials.

use actix_web::dev::Server;
use actix_web::{App, HttpServer, web};
use anyhow::Context;
use clap::Args;
use heyuan_kernel::Clock;
use heyuan_kernel::config::Secret;
use heyuan_mall::simulator::{self as payments, Simulator};
use heyuan_membership::simulator::{self as logins, LoginSimulator};
use heyuan_staff::simulator::{self as providers, OidcSimulator};
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
    /// The secret shared with the tenant (its settings mall.payment_secret, login.sms_secret, staff.client_secret and the secrets of login.apps)
    #[arg(long, env = "HEYUAN_MALL__PAYMENT_SECRET", hide_env_values = true)]
    secret: String,
}

/// Serves the gateway until it is told to stop.
///
/// # Errors
/// When the address can't be listened on.
pub(crate) async fn run(options: RunSimulator) -> anyhow::Result<()> {
    let listener = TcpListener::bind(&options.listen).with_context(|| format!("could not listen on {}", options.listen))?;
    serve(listener, &options.secret, options.notify_url)?.await.context("the simulator broke off")
}

/// Serves everybody whom the simulator plays, at one address and with one secret.
///
/// # Errors
/// The listener's.
pub(crate) fn serve(listener: TcpListener, secret: &str, notify_url: String) -> std::io::Result<Server> {
    let secret = Secret::new(secret);
    let gateway = web::Data::new(Simulator::new(secret.clone(), notify_url));
    let people = web::Data::new(LoginSimulator::new(secret.clone()));
    let provider = web::Data::new(OidcSimulator::new(secret, Clock::system()));
    let server = HttpServer::new(move || {
        let app = App::new().app_data(gateway.clone()).app_data(people.clone()).app_data(provider.clone());
        app.configure(payments::configure).configure(logins::configure).configure(providers::configure)
    });
    Ok(server.workers(1).listen(listener)?.run())
}
